import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedavgm import Momentum
from fedit.algorithms.ffa_lora import only_b
from fedit.algorithms.parts.losses import LOSS
from fedit.algorithms.term import term
from fedit.core.messages import ADAPTER, Order, Update
from fedit.core.tree import same
from tests.algorithms.by_hand import PAIR, START, UNBIASED, B, Hand, close, vector
from tests.toy import Toy, last, toy_policy, tree

NAMES = frozenset(tree(1))


def softmax(t, losses, weights):
    """Of t f_k + log a_k."""
    logits = t * np.asarray(losses) + np.log(weights)
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


@pytest.mark.parametrize("t", [-0.3, 0.0, 0.05, 1.0])
@pytest.mark.parametrize("only", [slice(None), B], ids=["everything", "only B"])
def test_six_rounds_are_what_numpy_says(t, only, tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    algorithm = replace(term(t), scope=only_b) if only == B else term(t)
    w = START
    for one in hand.run(algorithm, policy=PAIR):
        cohort = one.order.cohort
        weights = softmax(t, [hand.loss(c, w) for c in cohort], hand.sizes(cohort))
        w = w + hand.delta(one, w, weights, only=only)
        close(one.state.adapter, w, 2e-5)
    if only == B:
        assert torch.equal(one.state.adapter["layer.lora_A"], tree(1)["layer.lora_A"])


def test_unbiased_weights_are_tilted_and_their_sum_is_the_pace(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w = START
    for one in hand.run(term(0.1), policy=UNBIASED):
        cohort = one.order.cohort
        given = hand.unbiased(cohort)
        weights = given.sum() * softmax(0.1, [hand.loss(c, w) for c in cohort], given)
        w = w + hand.delta(one, w, weights)
        close(one.state.adapter, w, 1e-5)


def test_momentum_on_the_server(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w, v = START, 0.0
    for one in hand.run(replace(term(0.1), server=Momentum(0.5, 0.6))):
        cohort = one.order.cohort
        weights = softmax(0.1, [hand.loss(c, w) for c in cohort], hand.sizes(cohort))
        v = 0.6 * v + hand.delta(one, w, weights)
        w = w + 0.5 * v
        close(one.state.adapter, w, 1e-5)


GIVEN = {"a": 3.0, "b": 10.0, "c": 1.0}
FITTED = {"a": tree(2), "b": tree(3), "c": tree(4)}


def mean(t, losses, groups=(("a", "b", "c"),)):
    """What clients with these losses come to, added up in groups that are merged."""
    combine = term(t).combine
    order = Order(0, 0, 0, {ADAPTER: tree(1)}, GIVEN, NAMES, NAMES)
    whole = combine.start(order)
    for group in groups:
        total = combine.start(order)
        for client in group:
            update = Update(client, 0, 0, {ADAPTER: FITTED[client]}, {LOSS: losses[client]})
            total = combine.add(total, update, order)
        whole = combine.merge(whole, total)
    return vector(whole.mean())


def wanted(t, losses):
    weights = softmax(t, [losses[client] for client in GIVEN], list(GIVEN.values()))
    return weights @ np.stack([vector(FITTED[client]) for client in GIVEN])


LOSSES = {"a": 2.0, "b": 1.5, "c": 2.2}


@pytest.mark.parametrize("t", [-700.0, -1.0, 0.0, 0.5, 3.0, 700.0, 1e4])
@pytest.mark.parametrize(
    "groups", [["abc"], ["a", "b", "c"], ["c", "ab"], ["", "b", "", "ca", ""], ["ba", "c"]]
)
def test_weights_are_a_softmax_however_the_cohort_is_grouped(t, groups):
    np.testing.assert_allclose(mean(t, LOSSES, groups), wanted(t, LOSSES), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shift", [-5.0, 100.0, 1e5])
def test_what_is_added_to_every_loss_does_not_matter(shift):
    """Exactly so in the reals; here the losses themselves lose digits."""
    shifted = {client: loss + shift for client, loss in LOSSES.items()}
    np.testing.assert_allclose(mean(2.0, shifted), mean(2.0, LOSSES), rtol=1e-8)


@pytest.mark.parametrize(("t", "picked"), [(1e4, "c"), (1e300, "c"), (-1e4, "b"), (-1e300, "b")])
@pytest.mark.parametrize("groups", [["abc"], ["c", "b", "a"], ["ab", "c"]])
def test_without_bound_it_picks_the_worst_or_the_best_client(t, picked, groups):
    np.testing.assert_array_equal(mean(t, LOSSES, groups), vector(FITTED[picked]))


@pytest.mark.parametrize("t", [1e4, -1e4])
def test_a_whole_round_at_a_huge_tilt_follows_one_client(t, tmp_path, monkeypatch):
    monkeypatch.setattr("fedit.core.shares.GROUPS", 2)
    hand = Hand(tmp_path, monkeypatch)
    one = hand.run(term(t), until=2, policy=toy_policy(1.0))[0]
    losses = {client: hand.loss(client, START) for client in hand.names}
    picked = (max if t > 0 else min)(losses, key=losses.get)
    close(one.state.adapter, hand.fitted(picked, START))


def test_equal_losses_and_no_tilt_are_the_plain_mean():
    equal = dict.fromkeys(GIVEN, 1.7)
    np.testing.assert_allclose(mean(5.0, equal), wanted(0.0, equal), rtol=1e-12)
    np.testing.assert_allclose(mean(0.0, LOSSES), wanted(0.0, equal), rtol=1e-12)


def test_one_client_is_plain_training_bit_for_bit_and_no_tilt_is_fedavg(tmp_path):
    for t, clients in ((50.0, 1), (0.0, 6)):
        ours = last(Toy(tmp_path / f"a{t}", clients).run(term(t), policy=toy_policy(0.5)))
        plain = last(Toy(tmp_path / f"b{t}", clients).run(fedavg(), policy=toy_policy(0.5)))
        assert same(ours, plain)


def test_equal_clients_are_one_client(tmp_path, monkeypatch):
    results = []
    for count in (1, 4):
        hand = Hand(tmp_path / str(count), monkeypatch, clients=count)
        hand.aim_at(tree(7))
        results.append(vector(last(hand.run(term(1.0), policy=toy_policy(1.0)))))
    np.testing.assert_allclose(*results, rtol=2e-6, atol=2e-6)


def test_a_round_that_changes_nothing_changes_nothing(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    hand.aim_at(tree(1))
    close(last(hand.run(term(3.0))), START, 1e-7)


def test_an_empty_total_comes_to_any_level_and_a_full_one_only_rises():
    total = term(1.0).combine.start(Order(0, 0, 0, {}, {}, NAMES, NAMES))
    total.rise(-900.0)
    assert (total.level, total.mass(), total.sums()) == (-900.0, 0.0, {})
    total.add({ADAPTER: tree(1)}, 2.0)
    total.rise(-901.0)
    assert (total.level, total.mass()) == (-900.0, 2.0)
    total.rise(-899.0)
    assert total.level == -899.0
    assert total.mass() == pytest.approx(2.0 / math.e)
