from dataclasses import replace

import numpy as np
import pytest

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedavgm import Momentum
from fedit.algorithms.fednova import fednova
from fedit.algorithms.fedprox import Proximal
from fedit.algorithms.ffa_lora import only_b
from fedit.core.messages import ADAPTER, Order, Update
from fedit.core.tree import same
from tests.algorithms.by_hand import PAIR, START, UNBIASED, B, Hand, close, vector
from tests.toy import Toy, last, toy_policy, tree

UNEVEN = {"c0": 7, "c1": 1, "c2": 3, "c3": 2}
NAMES = frozenset(tree(1))


def step(hand, cohort, w, weights, **how):
    """−τ_eff Σ p_k d_k with d_k = (w − w_k)/τ_k and τ_eff = Σ p_k τ_k / Σ p_k (arXiv 2007.07481, eq. 8)."""
    steps = np.array([hand.steps(client) for client in cohort])
    ways = [(w - hand.fitted(c, w, **how)) / tau for c, tau in zip(cohort, steps, strict=True)]
    return -(weights @ steps / weights.sum()) * (weights @ np.stack(ways))


@pytest.mark.parametrize("policy", [PAIR, UNBIASED], ids=["renormalised", "unbiased"])
def test_six_rounds_of_unlike_steps_are_what_numpy_says(policy, tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch, each=UNEVEN)
    w = START
    for one in hand.run(fednova(), policy=policy):
        cohort = one.order.cohort
        weights = hand.unbiased(cohort) if policy is UNBIASED else hand.sizes(cohort)
        w = w + step(hand, cohort, w, weights)
        close(one.state.adapter, w)
    plain = Hand(tmp_path / "plain", monkeypatch, each=UNEVEN).run(fedavg(), policy=policy)
    assert np.abs(vector(last(plain)) - w).max() > 0.05, "FedAvg goes elsewhere"


def test_momentum_on_the_server_and_a_proximal_term_on_the_client(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch, each=UNEVEN)
    server = Momentum(0.5, 0.6, fednova().server)
    w, v = START, 0.0
    for one in hand.run(replace(fednova(), local=Proximal(0.7), server=server)):
        cohort = one.order.cohort
        pull = {"pull": lambda now, w=w: 0.7 * (now - w)}
        v = 0.6 * v + step(hand, cohort, w, hand.sizes(cohort), **pull)
        w = w + 0.5 * v
        close(one.state.adapter, w)


def test_what_does_not_travel_does_not_move(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch, each=UNEVEN)
    w = START
    for one in hand.run(replace(fednova(), scope=only_b)):
        w = w + step(hand, one.order.cohort, w, hand.sizes(one.order.cohort), only=B)
        close(one.state.adapter, w)
        assert same({"a": one.state.adapter["layer.lora_A"]}, {"a": tree(1)["layer.lora_A"]})


@pytest.mark.parametrize("steps", [1, 3, 4, 7])
def test_equal_steps_are_fedavg(steps, tmp_path, monkeypatch):
    results = []
    for algorithm in (fedavg(), fednova()):
        each = dict.fromkeys(("c0", "c1", "c2", "c3"), steps)
        hand = Hand(tmp_path / algorithm.name, monkeypatch, each=each)
        results.append(vector(last(hand.run(algorithm))))
    np.testing.assert_allclose(*results, rtol=1e-6, atol=1e-6)


def test_one_client_is_plain_training_whatever_its_steps(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch, clients=1, each={"c0": 7})
    w = START
    for one in hand.run(fednova(), policy=toy_policy(1)):
        w = hand.fitted("c0", w)
        close(one.state.adapter, w, 1e-6)


def test_whoever_takes_more_steps_has_no_more_say(tmp_path, monkeypatch):
    """Rest points: FedAvg's is drawn to those who take many steps, FedNova's far less (exact as η → 0)."""
    away = {}
    for algorithm in (fedavg(), fednova()):
        hand = Hand(tmp_path / algorithm.name, monkeypatch, each=UNEVEN)
        targets = np.stack([hand.target(client) for client in hand.names])
        best = hand.sizes(hand.names) @ targets
        found = vector(last(hand.run(algorithm, policy=toy_policy(1.0), until=60)))
        away[algorithm.name] = np.linalg.norm(found - best)
    assert away["fednova"] < 0.4 * away["fedavg"]


def updates(of, steps):
    return [Update(c, 0, 0, {ADAPTER: of}, {"steps": float(s)}) for c, s in steps.items()]


def test_updates_that_change_nothing_change_nothing():
    algorithm = fednova()
    order = Order(0, 0, 0, {ADAPTER: tree(1)}, {"a": 3.0, "b": 10.0}, NAMES, NAMES)
    total = algorithm.combine.start(order)
    for update in updates(tree(1), {"a": 7, "b": 3}):
        total = algorithm.combine.add(total, update, order)
    state = algorithm.server.init(tree(1))
    close(algorithm.server.step(state, total, order).adapter, START, 1e-7)


def test_the_scale_of_the_weights_does_not_matter():
    results = []
    for scale in (1.0, 1e-3):
        algorithm, given = fednova(), {"a": 3.0 * scale, "b": 10.0 * scale}
        order = Order(0, 0, 0, {ADAPTER: tree(1)}, given, NAMES, NAMES)
        total = algorithm.combine.start(order)
        for update in [*updates(tree(2), {"a": 7}), *updates(tree(3), {"b": 3})]:
            total = algorithm.combine.add(total, update, order)
        state = algorithm.server.init(tree(1))
        results.append(vector(algorithm.server.step(state, total, order).adapter))
    np.testing.assert_allclose(*results, rtol=1e-6, atol=1e-7)
    w, w_a, w_b = START, vector(tree(2)), vector(tree(3))
    p, q = 3 / 13, 10 / 13
    wanted = w + (p * 7 + q * 3) * (p * (w_a - w) / 7 + q * (w_b - w) / 3)
    np.testing.assert_allclose(results[0], wanted, rtol=1e-6, atol=1e-6)


def test_noise_and_partial_rounds_do_not_break_equality_of_equal_steps(tmp_path):
    ours = last(Toy(tmp_path / "a").run(fednova()))
    plain = last(Toy(tmp_path / "b").run(fedavg()))
    close(ours, vector(plain), 1e-6)
