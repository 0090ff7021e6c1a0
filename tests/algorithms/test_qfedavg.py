from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.ffa_lora import only_b
from fedit.algorithms.parts.losses import LOSS
from fedit.algorithms.qfedavg import qfedavg
from fedit.build import build
from fedit.core.errors import InputError
from fedit.core.messages import ADAPTER, Order, Update
from fedit.core.rounds import Policy
from fedit.core.tree import same
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, Unbiased, by_examples, equally
from tests.algorithms.by_hand import START, B, Hand, close, vector
from tests.tiny import tiny
from tests.toy import RATE, Toy, last, toy_policy, tree

NAMES = frozenset(tree(1))


def textbook(w, fits, losses, q, rate):
    """arXiv 1905.10497, Algorithm 2, with L = 1/η."""
    above, below = np.zeros_like(w), 0.0
    for w_k, f in zip(fits, losses, strict=True):
        way = (w - w_k) / rate
        above = above + f**q * way
        below += q * f ** (q - 1) * (way @ way) + f**q / rate
    return w - above / below


@pytest.mark.parametrize("only", [slice(None), B], ids=["everything", "only B"])
@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 2.5])
def test_six_rounds_are_what_numpy_says(q, only, tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch, each={"c1": 2, "c3": 6})
    algorithm = qfedavg(q, 1 / RATE)
    algorithm = replace(algorithm, scope=only_b) if only == B else algorithm
    w = START
    for one in hand.run(algorithm):
        cohort = one.order.cohort
        losses = [hand.loss(client, w) for client in cohort]
        told = [one.metrics[client][LOSS] for client in cohort]
        assert told == pytest.approx(losses, rel=1e-5), "the loss of what was received"
        w = textbook(w, [hand.fitted(c, w, only=only) for c in cohort], losses, q, RATE)
        close(one.state.adapter, w)
    if only == B:
        assert torch.equal(one.state.adapter["layer.lora_A"], tree(1)["layer.lora_A"])


def test_q_zero_is_the_mean_without_weights(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w = START
    for one in hand.run(qfedavg(0.0, 1 / RATE)):
        w = np.mean([hand.fitted(client, w) for client in one.order.cohort], axis=0)
        close(one.state.adapter, w)


def test_the_plans_weights_are_of_no_account(tmp_path):
    results = []
    for weigh in (Renormalised(by_examples), Renormalised(equally), Unbiased(by_examples)):
        toy = Toy(tmp_path / f"{len(results)}")
        results.append(last(toy.run(qfedavg(1.0, 1 / RATE), policy=Policy(Uniform(3), weigh))))
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_one_client_goes_a_damped_part_of_its_way(tmp_path, monkeypatch):
    """w − (w − w₁) / (1 + q L ‖w − w₁‖² / F)."""
    hand = Hand(tmp_path, monkeypatch, clients=1)
    one = hand.run(qfedavg(2.0, 1 / RATE), until=2, policy=toy_policy(1))[0]
    way = hand.fitted("c0", START) - START
    damped = 1 + 2.0 / RATE * (way @ way) / hand.loss("c0", START)
    close(one.state.adapter, START + way / damped)


def test_equal_clients_are_one_client(tmp_path, monkeypatch):
    results = []
    for count in (1, 4):
        hand = Hand(tmp_path / str(count), monkeypatch, clients=count)
        hand.aim_at(tree(7))
        results.append(vector(last(hand.run(qfedavg(1.0, 1 / RATE), policy=toy_policy(1.0)))))
    np.testing.assert_allclose(*results, rtol=2e-6, atol=2e-6)


def stepped(q, *told, start=1, lipschitz=1 / RATE):
    """The server's step from (the seed of what a client fitted, its loss, how far it says it moved)."""
    algorithm = qfedavg(q, lipschitz)
    weights = {f"c{i}": 1.0 + i for i in range(len(told))}
    order = Order(0, 0, 0, {ADAPTER: tree(start)}, weights, NAMES, NAMES)
    total = algorithm.combine.start(order)
    for client, (seed, loss, moved) in zip(weights, told, strict=True):
        payload, metrics = {ADAPTER: tree(seed)}, {LOSS: loss, "moved": moved}
        total = algorithm.combine.add(total, Update(client, 0, 0, payload, metrics), order)
    return algorithm.server.step(algorithm.server.init(tree(start)), total, order).adapter


@pytest.mark.parametrize("q", [0.0, 0.5, 3.0])
def test_a_round_that_changes_nothing_changes_nothing(q):
    close(stepped(q, (1, 2.0, 0.0), (1, 0.1, 0.0)), START, 1e-7)


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 3.0])
def test_a_loss_of_zero_divides_nothing_by_zero(q):
    assert all(bool(t.isfinite().all()) for t in stepped(q, (2, 0.0, 1.0), (3, 0.0, 0.0)).values())


def test_the_higher_q_the_more_of_the_direction_is_the_worst_clients():
    """Of the unit vectors to either client's place, the step's lies nearer to that with the higher loss."""
    worst, other = vector(tree(2)) - START, vector(tree(3)) - START
    shares = []
    for q in (0.0, 1.0, 4.0):
        step = vector(stepped(q, (2, 3.0, 1.0), (3, 1.0, 1.0))) - START
        (a, b), *_ = np.linalg.lstsq(np.stack([worst, other], axis=1), step)
        shares.append(a / (a + b))
    assert shares == pytest.approx([1 / 2, 3 / 4, 81 / 82], rel=1e-4)


def test_the_losses_scale_does_not_change_the_direction_only_the_damping():
    low = vector(stepped(1.0, (2, 3.0, 1.0), (3, 1.0, 1.0))) - START
    high = vector(stepped(1.0, (2, 3000.0, 1.0), (3, 1000.0, 1.0))) - START
    assert low @ high / np.linalg.norm(low) / np.linalg.norm(high) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(high) > np.linalg.norm(low)


def test_the_smaller_l_the_nearer_to_the_mean_weighed_by_loss():
    mean = (3 * vector(tree(2)) + vector(tree(3))) / 4
    away = [
        np.linalg.norm(vector(stepped(1.0, (2, 3.0, 9.0), (3, 1.0, 9.0), lipschitz=one)) - mean)
        for one in (100.0, 1.0, 1e-2, 1e-6)
    ]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 1e-3


@pytest.mark.parametrize(("given", "expected"), [(None, 1 / 0.02), (0.5, 0.5)])
def test_l_is_the_plans_or_what_the_clients_rate_gives(given, expected, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("fedit.build.algorithms.qfedavg", lambda *how: seen.append(how) or fedavg())
    plan = tiny(tmp_path, local={"lr": 0.02}, algorithm={"name": "qfedavg", "lipschitz": given})
    build(plan, tmp_path, blank=True)
    assert set(seen) == {(1.0, expected)}


def test_no_loss_that_passes_the_gate_is_too_much_for_the_largest_q(tmp_path):
    algorithm = qfedavg(20.0, 1 / RATE)
    for losses in ((1e6, 1e6, 1e6), (0.0, 0.0, 0.0), (1e6, 1.0, 0.0)):
        toy, said = (
            Toy(tmp_path / str(losses), clients=3),
            dict(zip(("c0", "c1", "c2"), losses, strict=True)),
        )
        toy.trainer.loss = lambda client, order, at, said=said: said[client]
        found = last(toy.run(algorithm, until=2, policy=toy_policy(1.0)))
        assert all(bool(torch.isfinite(value).all()) for value in found.values())
    with pytest.raises(InputError, match=r"algorithm\.q.*20"):
        tiny(tmp_path, algorithm={"name": "qfedavg", "q": 21})
