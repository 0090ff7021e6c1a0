from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit.algorithms.afl import MIXTURE, afl, on_simplex
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedavgm import Momentum
from fedit.algorithms.ffa_lora import only_b
from fedit.core.messages import ADAPTER, Order
from fedit.core.rounds import Policy
from fedit.core.sums import Sum
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Unbiased, by_examples
from tests.algorithms.by_hand import START, B, Hand, close, vector
from tests.toy import Toy, last, toy_policy, tree

NAMES = frozenset(tree(1))
SHARES = {"c0": 10, "c1": 17, "c2": 24, "c3": 31}


def nearest(point):
    """The nearest point of the simplex by trying every set of coordinates that may be above zero."""
    best, least = None, np.inf
    for size in range(1, len(point) + 1):
        for chosen in map(list, combinations(range(len(point)), size)):
            found = np.zeros(len(point))
            found[chosen] = point[chosen] - (point[chosen].sum() - 1) / size
            if (found >= 0).all() and (away := np.square(found - point).sum()) < least:
                best, least = found, away
    return best


def lambdas(state):
    return np.array([float(value) for value in state.private[MIXTURE].values()])


class Textbook:
    """arXiv 1902.00146, Algorithm 1, the gradient by λ known for the cohort only."""

    def __init__(self, hand, gamma):
        self.hand, self.gamma = hand, gamma
        self.mixture = hand.sizes(hand.names)

    def delta(self, cohort, w, **how):
        places = [self.hand.names.index(client) for client in cohort]
        weights = np.maximum(self.mixture[places], 1e-12)
        weights = weights / weights.sum()
        moved = sum(
            p * (self.hand.fitted(c, w, **how) - w) for p, c in zip(weights, cohort, strict=True)
        )
        losses = np.zeros(len(self.mixture))
        losses[places] = [self.hand.loss(client, w) for client in cohort]
        self.mixture = nearest(self.mixture + self.gamma * losses)
        return moved


@pytest.mark.parametrize("gamma", [0.0, 0.002, 0.02, 1.0])
@pytest.mark.parametrize("only", [slice(None), B], ids=["everything", "only B"])
def test_six_rounds_are_what_numpy_says(gamma, only, tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    book, w = Textbook(hand, gamma), START
    algorithm = afl(gamma, SHARES)
    algorithm = replace(algorithm, scope=only_b) if only == B else algorithm
    for one in hand.run(algorithm):
        w = w + book.delta(one.order.cohort, w, only=only)
        close(one.state.adapter, w, 1e-5)
        np.testing.assert_allclose(lambdas(one.state), book.mixture, rtol=1e-5, atol=1e-6)
        assert list(one.state.private[MIXTURE]) == hand.names


def test_momentum_on_the_server_leaves_the_mixture_to_afl(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    book, w, v = Textbook(hand, 0.01), START, 0.0
    algorithm = afl(0.01, SHARES)
    for one in hand.run(replace(algorithm, server=Momentum(0.5, 0.6, algorithm.server))):
        v = 0.6 * v + book.delta(one.order.cohort, w)
        w = w + 0.5 * v
        close(one.state.adapter, w, 1e-5)
        np.testing.assert_allclose(lambdas(one.state), book.mixture, rtol=1e-5, atol=1e-6)


def test_gamma_zero_keeps_the_mixture_and_is_fedavg(tmp_path):
    toy = Toy(tmp_path / "a", clients=4)
    done = toy.run(afl(0.0, SHARES))
    plain = Toy(tmp_path / "b", clients=4).run(fedavg())
    wanted = np.array(list(SHARES.values())) / 82
    np.testing.assert_allclose(lambdas(done[-1].state), wanted, rtol=1e-14)
    close(last(done), vector(last(plain)), 1e-6)


def test_the_plans_weights_and_pace_are_of_no_account(tmp_path):
    usual = Toy(tmp_path / "a", clients=4).run(afl(0.01, SHARES))
    policy = Policy(Uniform(3), Unbiased(by_examples))
    other = Toy(tmp_path / "b", clients=4).run(afl(0.01, SHARES), policy=policy)
    np.testing.assert_array_equal(vector(last(usual)), vector(last(other)))


def test_it_ends_where_the_two_worst_are_equally_badly_off(tmp_path, monkeypatch):
    """min max of the losses: of three clients on a line the middle one weighs nothing in the end."""
    hand = Hand(tmp_path, monkeypatch, clients=3)
    for client, place in zip(hand.names, (0.0, 0.3, 1.0), strict=True):
        hand.aim_at({name: torch.full_like(t, place) for name, t in tree(1).items()}, client)
    done = hand.run(afl(0.02, dict.fromkeys(hand.names, 1)), until=150, policy=toy_policy(1.0))
    np.testing.assert_allclose(lambdas(done[-1].state), [0.5, 0, 0.5], atol=0.02)
    np.testing.assert_allclose(vector(last(done)), 0.5, atol=0.02)


def test_a_client_that_weighs_nothing_is_still_trained_and_may_rise_again():
    algorithm = afl(0.1, {"a": 0, "b": 3})
    state = algorithm.server.init(tree(1))
    names = frozenset(tree(1))
    usual = Order(0, 0, 0, state.public, {"b": 5.0, "a": 9.0}, names, names, 2.5)
    order = algorithm.prepare(state, usual)
    assert order.weights == {"b": 1.0, "a": 1e-12}
    assert list(order.weights) == ["b", "a"], "the cohort's order"
    assert order.pace == 1.0
    total = Sum()
    total.add({ADAPTER: tree(2)}, 1.0)
    total.count("a", 3.0)
    total.count("b", 1.0)
    after = algorithm.server.step(state, total, order)
    np.testing.assert_allclose(lambdas(after), [0.1, 0.9], rtol=1e-12)  # (0.3, 1.1) less 0.2 each


def test_who_did_not_reply_does_not_rise():
    algorithm = afl(0.1, {"a": 1, "b": 1})
    state, total = algorithm.server.init(tree(1)), Sum()
    total.add({ADAPTER: tree(2)}, 1.0)
    total.count("a", 2.0)
    order = Order(0, 0, 0, state.public, {"a": 0.5, "b": 0.5}, NAMES, NAMES)
    np.testing.assert_allclose(lambdas(algorithm.server.step(state, total, order)), [0.6, 0.4])


def test_equal_losses_leave_the_mixture():
    algorithm = afl(10.0, {"a": 1, "b": 3})
    state, total = algorithm.server.init(tree(1)), Sum()
    total.add({ADAPTER: tree(2)}, 1.0)
    for client in "ab":
        total.count(client, 7.0)
    order = Order(0, 0, 0, state.public, {"a": 0.25, "b": 0.75}, NAMES, NAMES)
    np.testing.assert_allclose(lambdas(algorithm.server.step(state, total, order)), [0.25, 0.75])


def test_losses_are_counted_in_fp64():
    """In fp32 a loss near 1 has seven digits, and λ would have no more."""
    algorithm = afl(1.0, {"a": 1, "b": 1})
    state, total = algorithm.server.init(tree(1)), Sum()
    total.add({ADAPTER: tree(2)}, 1.0)
    total.count("a", 0.3 + 1e-10)
    total.count("b", 0.3)
    order = Order(0, 0, 0, state.public, {"a": 0.5, "b": 0.5}, NAMES, NAMES)
    found = lambdas(algorithm.server.step(state, total, order))
    assert found[0] - found[1] == pytest.approx(1e-10, rel=1e-4)


@settings(deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6))
def test_the_projection_is_the_nearest_point_of_all(point):
    found = on_simplex(torch.tensor(point, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(found, nearest(np.array(point)), atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_the_projection_meets_the_conditions_of_kuhn_and_tucker(point):
    """x ≥ 0, Σ x = 1, and one θ with x_i = p_i − θ where x_i > 0 and p_i ≤ θ elsewhere."""
    p = np.array(point)
    found = on_simplex(torch.tensor(p)).numpy()
    slack = 1e-9 * max(1.0, np.abs(p).max())
    assert (found >= 0).all()
    assert abs(found.sum() - 1) <= len(p) * slack
    theta = (p - found)[found > 0]
    assert np.ptp(theta) <= slack
    assert (p[found == 0] <= theta.max() + slack).all()


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6))
def test_a_point_of_the_simplex_stays(point):
    inside = torch.tensor(point, dtype=torch.float64) / sum(point)
    np.testing.assert_allclose(on_simplex(inside).numpy(), inside.numpy(), atol=1e-15)


@pytest.mark.parametrize("size", [1e16, 1e100, 1e300])
def test_of_large_numbers_the_largest_has_all(size):
    point = torch.tensor([0.2, size, 0.3], dtype=torch.float64)
    np.testing.assert_array_equal(on_simplex(point).numpy(), [0, 1, 0])
