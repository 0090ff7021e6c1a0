from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedavgm import Momentum
from fedit.algorithms.fedsam import Flat, fedsam
from fedit.algorithms.ffa_lora import only_b
from fedit.core.fitting import Fit
from fedit.core.messages import ADAPTER, Home, Order
from fedit.core.tree import norm, same, scale
from tests.algorithms.by_hand import PAIR, START, UNBIASED, B, Hand, close, vector
from tests.toy import last, toy_policy, tree

NAMES = frozenset(tree(1))


def uphill(rho):
    """arXiv 2206.02618, Algorithm 1: ε = ρ g / ‖g‖, the norm over all that trains."""
    return lambda slope: rho * slope / np.linalg.norm(slope)


def look_of(rho):
    seen = []

    def fit(start, look=None):
        seen.append(look)
        return Fit(start)

    order = Order(0, 0, 0, {ADAPTER: tree(1)}, {"a": 1.0}, NAMES, NAMES)
    Flat(rho)(tree(1), order, Home(), fit)
    return seen[0]


@pytest.mark.parametrize("rho", [0.05, 1.5])
@pytest.mark.parametrize("policy", [PAIR, UNBIASED], ids=["renormalised", "unbiased"])
def test_six_rounds_are_what_numpy_says(rho, policy, tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w = START
    for one in hand.run(fedsam(rho), policy=policy):
        weights = hand.unbiased(one.order.cohort) if policy is UNBIASED else None
        w = w + hand.delta(one, w, weights, ahead=uphill(rho))
        close(one.state.adapter, w)


def test_with_only_b_at_work_the_norm_is_bs_and_a_rests(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w = START
    for one in hand.run(replace(fedsam(1.0), scope=only_b)):
        w = w + hand.delta(one, w, ahead=uphill(1.0), only=B)
        close(one.state.adapter, w)
        assert torch.equal(one.state.adapter["layer.lora_A"], tree(1)["layer.lora_A"])


def test_momentum_on_the_server(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    w, v = START, 0.0
    for one in hand.run(replace(fedsam(0.5), server=Momentum(0.7, 0.5))):
        v = 0.5 * v + hand.delta(one, w, ahead=uphill(0.5))
        w = w + 0.7 * v
        close(one.state.adapter, w)


@pytest.mark.parametrize("rho", [0.05, 2.0])
@pytest.mark.parametrize("length", [1e-8, 1.0, 1e8])
def test_it_looks_rho_ahead_along_the_gradient_however_long_that_is(rho, length):
    gradient = scale(tree(3), length)
    ahead = look_of(rho).ahead(gradient)
    assert norm(ahead) == pytest.approx(rho, rel=1e-6)
    close(ahead, rho * vector(gradient) / np.linalg.norm(vector(gradient)), 1e-6)
    assert not look_of(rho).fresh, "the same batch, twice"


def test_where_there_is_no_slope_it_looks_where_it_stands():
    flat = scale(tree(1), 0.0)
    assert same(look_of(0.5).ahead(flat), flat)


def test_rho_zero_looks_nowhere():
    assert look_of(0.0) is None


def test_at_the_target_of_all_nothing_moves(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    hand.aim_at(tree(1))
    assert same(last(hand.run(fedsam(0.5))), tree(1))


def test_on_a_quadratic_it_takes_longer_steps_than_fedavg(tmp_path, monkeypatch):
    """g(w + ρ g/‖g‖) = g (1 + ρ/‖g‖) there: every step is longer by ηρ."""
    ways = []
    for rho in (0.0, 1.0):
        hand = Hand(tmp_path / str(rho), monkeypatch, clients=1, each={"c0": 1})
        one = hand.run(fedsam(rho), until=2, policy=toy_policy(1))[0]
        ways.append(np.linalg.norm(vector(one.state.adapter) - START))
    assert ways[1] - ways[0] == pytest.approx(0.1 * 1.0, rel=1e-4)
    assert fedsam(0.0).local != fedavg().local
