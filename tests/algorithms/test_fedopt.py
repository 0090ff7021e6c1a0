from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedopt import FIRST, SECOND, Adaptive
from fedit.algorithms.fedprox import fedprox
from fedit.algorithms.ffa_lora import ffa_lora
from fedit.core.messages import ADAPTER, Order
from fedit.core.sums import Sum
from fedit.core.tree import same
from tests.algorithms.by_hand import START, UNBIASED, B, Hand, close
from tests.toy import toy_policy, tree

NAMES = frozenset(tree(1))
ORDER = Order(0, 0, 0, {ADAPTER: tree(1)}, {"a": 1.0}, NAMES, NAMES)
KINDS = ("adagrad", "yogi", "adam")

every = pytest.mark.parametrize("kind", KINDS)


def around(of, kind, **options):
    return replace(of, server=Adaptive(kind, inner=of.server, **options))


def total(mean):
    found = Sum()
    found.add({ADAPTER: mean}, 3.0)
    return found


class Textbook:
    """arXiv 2003.00295, Algorithm 2."""

    def __init__(self, kind, lr, beta1, beta2, tau):
        self.kind, self.lr, self.beta1, self.beta2, self.tau = kind, lr, beta1, beta2, tau
        self.m, self.v = np.zeros_like(START), np.full_like(START, tau**2)
        self.signs = set()

    def step(self, w, delta):
        self.m = self.beta1 * self.m + (1 - self.beta1) * delta
        if self.kind == "adagrad":
            self.v = self.v + delta**2
        elif self.kind == "yogi":
            sign = np.sign(self.v - delta**2)
            self.signs |= set(sign.tolist())
            self.v = self.v - (1 - self.beta2) * delta**2 * sign
        else:
            self.v = self.beta2 * self.v + (1 - self.beta2) * delta**2
        return w + self.lr * self.m / (np.sqrt(self.v) + self.tau)


@every
@pytest.mark.parametrize("settings", [(0.1, 0.9, 0.99, 0.3), (0.02, 0.0, 0.5, 0.3)])
def test_six_rounds_are_what_numpy_says(kind, settings, tmp_path, monkeypatch):
    lr, beta1, beta2, tau = settings
    hand, book = Hand(tmp_path, monkeypatch), Textbook(kind, *settings)
    algorithm = around(fedavg(), kind, lr=lr, beta1=beta1, beta2=beta2, tau=tau)
    w = START
    for one in hand.run(algorithm):
        w = book.step(w, hand.delta(one, w))
        close(one.state.adapter, w)
    close(one.state.private[FIRST], book.m)
    close(one.state.private[SECOND], book.v)
    assert kind != "yogi" or book.signs >= {1.0, -1.0}, "both branches were taken"


@every
def test_the_papers_tau_over_long(kind, tmp_path, monkeypatch):
    """With τ = 1e-3 the first steps are nearly as long as lr allows, whatever Δ."""
    hand, book = Hand(tmp_path, monkeypatch), Textbook(kind, 1e-2, 0.9, 0.99, 1e-3)
    w = START
    for one in hand.run(around(fedavg(), kind), until=20):
        w = book.step(w, hand.delta(one, w))
    close(one.state.adapter, w, 2e-5)


@every
def test_around_fedprox_with_unbiased_weights(kind, tmp_path, monkeypatch):
    hand, book = Hand(tmp_path, monkeypatch), Textbook(kind, 0.1, 0.9, 0.99, 0.3)
    w = START
    for one in hand.run(around(fedprox(0.7), kind, lr=0.1, tau=0.3), policy=UNBIASED):
        weights = hand.unbiased(one.order.cohort)
        w = book.step(w, hand.delta(one, w, weights, pull=lambda now, w=w: 0.7 * (now - w)))
        close(one.state.adapter, w)


@every
def test_around_ffa_lora_what_does_not_travel_does_not_move(kind, tmp_path, monkeypatch):
    hand, book = Hand(tmp_path, monkeypatch), Textbook(kind, 0.1, 0.9, 0.99, 0.3)
    w, name = START, "layer.lora_A"
    for one in hand.run(around(ffa_lora(), kind, lr=0.1, tau=0.3)):
        moved = book.step(w, hand.delta(one, w, only=B))
        w = np.concatenate([w[: B.start], moved[B]])
        close(one.state.adapter, w)
        assert torch.equal(one.state.adapter[name], tree(1)[name])
        assert not one.state.private[FIRST][name].any()
        assert (one.state.private[SECOND][name] == 0.3**2).all(), "the moments of A wait"


@every
def test_a_large_tau_without_momentum_is_fedavg(kind):
    """√v = τ at the start, so η = 2τ; Adam's v has shrunk to β₂τ² by its first step."""
    tau = 1e5
    lr = tau * (1 + (0.99**0.5 if kind == "adam" else 1))
    server = Adaptive(kind, lr, beta1=0.0, tau=tau)
    got = server.step(server.init(tree(1)), total(tree(2)), ORDER).adapter
    for name, wanted in tree(2).items():
        torch.testing.assert_close(got[name], wanted, rtol=1e-6, atol=1e-6)


@every
def test_a_round_that_changes_nothing_changes_nothing(kind):
    server = Adaptive(kind)
    start = server.init(tree(1))
    after = server.step(start, total(tree(1)), ORDER)
    assert same(after.adapter, tree(1))
    assert not any(bool(t.any()) for t in after.private[FIRST].values())
    shrunk = 0.99 if kind == "adam" else 1.0
    for value in after.private[SECOND].values():
        torch.testing.assert_close(value, torch.full_like(value, shrunk * 1e-6))


@every
def test_moments_are_fp64_private_and_the_old_state_is_left_alone(kind):
    server = Adaptive(kind)
    start = server.init(tree(1))
    assert start.public.keys() == {ADAPTER}
    assert {t.dtype for role in (FIRST, SECOND) for t in start.private[role].values()} == {
        torch.float64
    }
    after = server.step(
        replace(start, private={**start.private, "x": tree(9)}), total(tree(2)), ORDER
    )
    assert same(after.private["x"], tree(9))
    assert not start.private[FIRST]["layer.lora_A"].any()
    assert not same(after.adapter, tree(1))


@every
def test_one_client_and_equal_clients_step_alike(kind, tmp_path, monkeypatch):
    book, results = Textbook(kind, 0.1, 0.9, 0.99, 0.3), []
    for count in (1, 4):
        hand = Hand(tmp_path / str(count), monkeypatch, clients=count)
        hand.aim_at(tree(7))
        algorithm = around(fedavg(), kind, lr=0.1, tau=0.3)
        results.append(hand.run(algorithm, policy=toy_policy(min(count, 2)))[-1].state.adapter)
    w = START
    for _ in range(6):
        w = book.step(w, hand.fitted("c0", w) - w)
    for result in results:
        close(result, w)
