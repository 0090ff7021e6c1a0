from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedavgm import MOMENTUM, Momentum
from fedit.algorithms.fedopt import Adaptive
from fedit.algorithms.ffa_lora import only_b
from fedit.algorithms.scaffold import CONTROL, Controlled, scaffold
from fedit.core.fitting import Fit
from fedit.core.messages import ADAPTER, Home, Order
from fedit.core.rounds import Policy
from fedit.core.tree import double, only, same, scale, sub
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, Unbiased, by_examples, equally
from tests.algorithms.by_hand import START, UNBIASED, B, Hand, close, mean_at_home, vector
from tests.toy import RATE, Toy, last, toy_policy, tree

UNEVEN = {"c0": 1, "c1": 3, "c2": 6, "c3": 2}
NAMES = frozenset(tree(1))


class Textbook:
    """arXiv 1910.06378, Algorithm 1, option II."""

    def __init__(self, hand):
        self.hand, self.c = hand, np.zeros_like(START)
        self.own = {name: np.zeros_like(START) for name in hand.names}

    def delta(self, cohort, w, weights):
        """Σ p_k (y_k − w), the control variates moved on."""
        moved, before = np.zeros_like(w), self.c
        for client, p in zip(cohort, weights, strict=True):
            correction = before - self.own[client]
            y = self.hand.fitted(client, w, pull=lambda now, by=correction: by)
            new = self.own[client] - before + (w - y) / (self.hand.steps(client) * RATE)
            self.c = self.c + (new - self.own[client]) / len(self.hand.names)
            self.own[client] = new
            moved = moved + p * (y - w)
        return moved


@pytest.mark.parametrize("policy", [toy_policy(2), UNBIASED], ids=["renormalised", "unbiased"])
def test_six_rounds_of_unlike_steps_are_what_numpy_says(policy, tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch, each=UNEVEN)
    book, w = Textbook(hand), START
    for one in hand.run(scaffold(4), policy=policy):
        cohort = one.order.cohort
        weights = hand.unbiased(cohort) if policy is UNBIASED else hand.sizes(cohort)
        w = w + book.delta(cohort, w, weights)
        close(one.state.adapter, w, 1e-5)
        close(one.state.public[CONTROL], book.c, 1e-5)
    np.testing.assert_allclose(mean_at_home(hand.toy, CONTROL, 6), book.c, rtol=1e-5, atol=1e-5)
    assert np.abs(book.c).max() > 0.1


def test_a_servers_rate_and_momentum_leave_the_controls_to_scaffold(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch, each=UNEVEN)
    book, w, v = Textbook(hand), START, 0.0
    server = Momentum(0.5, 0.6, scaffold(4).server)
    for one in hand.run(replace(scaffold(4), server=server)):
        v = 0.6 * v + book.delta(one.order.cohort, w, hand.sizes(one.order.cohort))
        w = w + 0.5 * v
        close(one.state.adapter, w, 1e-5)
        close(one.state.public[CONTROL], book.c, 1e-5)
    close(one.state.private[MOMENTUM], v, 1e-5)


def test_adam_on_the_server_steps_from_scaffolds_mean(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    book, w = Textbook(hand), START
    m, s = 0.0, 0.3**2
    server = Adaptive("adam", 0.1, tau=0.3, inner=scaffold(4).server)
    for one in hand.run(replace(scaffold(4), server=server)):
        delta = book.delta(one.order.cohort, w, hand.sizes(one.order.cohort))
        m, s = 0.9 * m + 0.1 * delta, 0.99 * s + 0.01 * delta**2
        w = w + 0.1 * m / (np.sqrt(s) + 0.3)
        close(one.state.adapter, w, 1e-5)
        close(one.state.public[CONTROL], book.c, 1e-5)


@pytest.mark.parametrize("weigh", [Renormalised(by_examples), Unbiased(by_examples)])
@pytest.mark.parametrize(("cohort", "dropout"), [(6, 0.0), (2, 0.0), (4, 0.5)])
def test_c_is_the_mean_of_all_clients_own(weigh, cohort, dropout, tmp_path):
    """Whoever took part, with noise, with clients that drop out and rounds that are asked anew."""
    toy = Toy(tmp_path)
    engine = toy.engine(scaffold(6), dropout=dropout)
    policy = Policy(Uniform(cohort), weigh, minimum=0.5, attempts=20)
    done = toy.run(scaffold(6), engine=engine, policy=policy, until=3)
    found = vector(done[-1].state.public[CONTROL])
    np.testing.assert_allclose(found, mean_at_home(toy, CONTROL, 3, "homes"), atol=1e-6)
    assert np.abs(found).max() > 0.1
    assert any(one.failures for one in done) == bool(dropout)
    assert any(one.order.attempt for one in done) == bool(dropout)


def test_killed_in_the_midst_of_a_round_c_is_still_the_mean(tmp_path):
    """Two of three clients have moved their own on when the process dies; the round begins anew."""
    whole, toy = Toy(tmp_path / "whole"), Toy(tmp_path / "killed")
    undisturbed = whole.run(scaffold(6), until=6)
    before = toy.run(scaffold(6), until=3)[-1].state
    fit, calls = toy.trainer.fit, []

    def dies(client, *rest):
        calls.append(client)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(client, *rest)

    toy.trainer.fit = dies
    with pytest.raises(KeyboardInterrupt):
        toy.run(scaffold(6), state=before, until=4)
    moved = mean_at_home(toy, CONTROL, 4) - mean_at_home(toy, CONTROL, 3)
    assert np.abs(moved).max() > 1e-3, "the dead round has left its traces"
    toy.trainer.fit = fit
    for until in (4, 5, 6):
        state = toy.run(scaffold(6), state=before, until=until)[-1].state
        wanted = mean_at_home(toy, CONTROL, until)
        np.testing.assert_allclose(vector(state.public[CONTROL]), wanted, atol=1e-6)
        before = state
    assert same(state.adapter, last(undisturbed))
    assert same(state.public[CONTROL], undisturbed[-1].state.public[CONTROL])


def test_the_first_round_is_fedavgs_bit_for_bit_and_the_second_is_not(tmp_path):
    ours = Toy(tmp_path / "a").run(scaffold(6), until=2)
    plain = Toy(tmp_path / "b").run(fedavg(), until=2)
    assert same(ours[0].state.adapter, plain[0].state.adapter)
    assert not same(ours[1].state.adapter, plain[1].state.adapter)


def test_it_undoes_the_pull_of_those_who_take_more_steps(tmp_path, monkeypatch):
    """On these quadratics the optimum is the mean of targets; FedAvg stops short of it, SCAFFOLD does not."""
    away = {}
    policy = Policy(Uniform(1.0), Renormalised(equally))
    for algorithm in (fedavg(), scaffold(4)):
        hand = Hand(tmp_path / algorithm.name, monkeypatch, each=UNEVEN)
        best = np.mean([hand.target(client) for client in hand.names], axis=0)
        found = vector(last(hand.run(algorithm, policy=policy, until=80)))
        away[algorithm.name] = np.linalg.norm(found - best)
    assert away["scaffold"] < 1e-4
    assert away["fedavg"] > 0.1


@pytest.mark.parametrize("count", [1, 4])
def test_where_there_is_no_drift_it_is_fedavg(count, tmp_path, monkeypatch):
    """One client, or equal ones who all take part: c_i = c, so that nothing is corrected."""
    results = []
    for algorithm in (fedavg(), scaffold(count)):
        hand = Hand(tmp_path / algorithm.name, monkeypatch, clients=count)
        hand.aim_at(tree(7))
        results.append(vector(last(hand.run(algorithm, policy=toy_policy(1.0)))))
    np.testing.assert_allclose(*results, rtol=3e-6, atol=3e-6)


def order(trains=NAMES, travels=NAMES):
    public = {ADAPTER: tree(1), CONTROL: scale(tree(2), 0.5)}
    return Order(3, 0, 0, public, {"a": 1.0}, trains, travels)


def test_no_way_gone_is_a_gradient_of_zero():
    """c_i⁺ = c_i − c + 0."""
    home = Home({CONTROL: tree(3)})
    work = Controlled()(tree(1), order(), home, lambda start, pull: Fit(start, path=0.4))
    assert same(work.extra[CONTROL], scale(order().public[CONTROL], -1.0))
    assert same(work.home[CONTROL], sub(tree(3), order().public[CONTROL]))


def test_the_pull_is_c_less_the_clients_own_whatever_the_place():
    seen = []

    def fit(start, pull):
        seen.extend([pull(tree(1)), pull(tree(5)), pull({"layer.lora_B": tree(5)["layer.lora_B"]})])
        return Fit(start, path=1.0)

    Controlled()(tree(1), order(), Home({CONTROL: tree(3)}), fit)
    wanted = sub(order().public[CONTROL], tree(3))
    assert same(seen[0], wanted)
    assert same(seen[1], wanted)
    assert same(seen[2], only(wanted, ["layer.lora_B"]))


def test_with_only_b_at_work_a_and_its_controls_rest(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    algorithm = replace(scaffold(4), scope=only_b)
    done = hand.run(algorithm)
    w, c, own = START, np.zeros_like(START), {name: np.zeros_like(START) for name in hand.names}
    for one in done:
        general, delta = c, np.zeros_like(w)
        cohort = one.order.cohort
        for client, p in zip(cohort, hand.sizes(cohort), strict=True):
            by = (general - own[client])[B]
            y = hand.fitted(client, w, pull=lambda now, by=by: by, only=B)
            new = own[client] - general + (w - y) / (4 * RATE)
            c, own[client] = c + (new - own[client]) / 4, new
            delta = delta + p * (y - w)
        w = w + delta
        close(one.state.adapter, w, 1e-5)
        close(one.state.public[CONTROL], c, 1e-5)
    assert torch.equal(done[-1].state.adapter["layer.lora_A"], tree(1)["layer.lora_A"])
    assert not done[-1].state.public[CONTROL]["layer.lora_A"].any()


def test_controls_begin_at_zero_in_the_adapters_own_shape():
    state = scaffold(6).server.init(tree(1))
    assert same(state.public[CONTROL], scale(tree(1), 0.0))
    assert not any(bool(t.any()) for t in double(state.public[CONTROL]).values())
