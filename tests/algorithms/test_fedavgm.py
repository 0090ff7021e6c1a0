from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import Replace, fedavg
from fedit.algorithms.fedavgm import MOMENTUM, Momentum
from fedit.algorithms.fedprox import fedprox
from fedit.algorithms.ffa_lora import ffa_lora
from fedit.algorithms.rolora import rolora
from fedit.core.messages import ADAPTER, Order
from fedit.core.sums import Sum
from fedit.core.tree import double, map_trees, same, scale
from tests.algorithms.by_hand import START, UNBIASED, B, Hand, close
from tests.toy import Toy, last, toy_policy, tree

NAMES = frozenset(tree(1))
ORDER = Order(0, 0, 0, {ADAPTER: tree(1)}, {"a": 1.0}, NAMES, NAMES)


def fedavgm(lr=1.0, beta=0.9, of=None):
    of = of or fedavg()
    return replace(of, server=Momentum(lr, beta, of.server))


def total(mean):
    found = Sum()
    found.add({ADAPTER: mean}, 3.0)
    return found


@pytest.mark.parametrize(("lr", "beta"), [(1.0, 0.9), (0.3, 0.5), (1.7, 0.0)])
def test_six_rounds_are_what_numpy_says(lr, beta, tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w, v = START, 0.0
    for one in hand.run(fedavgm(lr, beta)):
        v = beta * v + hand.delta(one, w)
        w = w + lr * v
        close(one.state.adapter, w)
    close(one.state.private[MOMENTUM], v)


def test_unbiased_weights_step_by_their_sum(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w, v = START, 0.0
    for one in hand.run(fedavgm(0.5), policy=UNBIASED):
        weights = hand.unbiased(one.order.cohort)
        v = 0.9 * v + hand.delta(one, w, weights)
        w = w + 0.5 * v
        close(one.state.adapter, w)
        assert one.order.pace == pytest.approx(weights.sum())
    assert abs(weights.sum() - 1) > 0.01


def test_around_fedprox_the_clients_are_fedprox(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w, v = START, 0.0
    for one in hand.run(fedavgm(0.8, 0.6, fedprox(0.7))):
        v = 0.6 * v + hand.delta(one, w, pull=lambda now, w=w: 0.7 * (now - w))
        w = w + 0.8 * v
        close(one.state.adapter, w)


def test_around_ffa_lora_what_does_not_travel_does_not_move(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w, v = START, 0.0
    for one in hand.run(fedavgm(of=ffa_lora())):
        v = 0.9 * v + hand.delta(one, w, only=B)
        w = w + v
        close(one.state.adapter, w)
        assert torch.equal(one.state.adapter["layer.lora_A"], tree(1)["layer.lora_A"])
        assert not one.state.private[MOMENTUM]["layer.lora_A"].any()


def test_around_rolora_momentum_waits_for_its_factors_turn(tmp_path):
    before = None
    for one in Toy(tmp_path).run(fedavgm(of=rolora())):
        for name in NAMES - one.order.travels:
            if before:
                assert torch.equal(one.state.adapter[name], before.adapter[name])
                kept = before.private[MOMENTUM][name]
                assert torch.equal(one.state.private[MOMENTUM][name], kept)
        for name in one.order.travels:
            assert one.state.private[MOMENTUM][name].any()
        before = one.state


def test_a_round_that_changes_nothing_coasts():
    server = Momentum(lr=0.5, beta=0.8)
    start = server.init(tree(1))
    assert same(server.step(start, total(tree(1)), ORDER).adapter, tree(1))
    moving = replace(start, private={MOMENTUM: double(tree(3))})
    coasted = server.step(moving, total(tree(1)), ORDER)
    wanted = map_trees(lambda w, v: (w.double() + 0.5 * 0.8 * v.double()).float(), tree(1), tree(3))
    assert same(coasted.adapter, wanted)
    assert same(coasted.private[MOMENTUM], scale(double(tree(3)), 0.8))


def test_without_momentum_the_rate_stretches_the_step():
    start = Replace().init(tree(1))
    plain = Replace().step(start, total(tree(2)), ORDER)
    one = Momentum(lr=1.0, beta=0.0)
    assert same(one.step(one.init(tree(1)), total(tree(2)), ORDER).adapter, plain.adapter)
    two = Momentum(lr=2.0, beta=0.0)
    got = two.step(two.init(tree(1)), total(tree(2)), ORDER).adapter
    for name, old in tree(1).items():
        torch.testing.assert_close(got[name], 2 * plain.adapter[name] - old)


def test_momentum_is_fp64_private_and_beside_what_others_keep():
    server = Momentum()
    start = server.init(tree(1))
    assert {t.dtype for t in start.private[MOMENTUM].values()} == {torch.float64}
    full = replace(start, public={**start.public, "base": tree(8)})
    full = replace(full, private={**full.private, "other": tree(9)})
    after = server.step(full, total(tree(2)), ORDER)
    assert set(after.public) == {ADAPTER, "base"}
    assert same(after.private["other"], tree(9))
    assert same(after.public["base"], tree(8))
    assert not full.private[MOMENTUM]["layer.lora_A"].any(), "the old state was written to"


def test_one_client_and_equal_clients_see_one_momentum(tmp_path, monkeypatch):
    """Every client has the same target: who takes part and how many there are does not matter."""
    results = []
    for count in (1, 4):
        hand = Hand(tmp_path / str(count), monkeypatch, clients=count)
        hand.aim_at(tree(7))
        results.append(last(hand.run(fedavgm(0.5), policy=toy_policy(min(count, 2)))))
    w, v = START, 0.0
    for _ in range(6):
        v = 0.9 * v + hand.fitted("c0", w) - w
        w = w + 0.5 * v
    for result in results:
        close(result, w)
    assert np.abs(w - START).max() > 0.1
