"""Per-FedAvg (arXiv 2002.07948), first order: gradients are taken one step ahead."""

import pytest

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.perfedavg import perfedavg
from fedit.core.fitting import Fit
from fedit.core.messages import ADAPTER, Home
from fedit.core.tree import same
from tests import toy as toys
from tests.factors import (
    NAMES,
    WEIGHTS,
    answers,
    asked,
    averaged,
    descend,
    factors,
    near,
    step,
    trainer,
)

START = factors(1)


def one_round(algorithm, toy=None):
    state = algorithm.server.init(START)
    order = asked(algorithm, state)
    replies = answers(algorithm, order, toy or trainer())
    return step(algorithm, state, order, {c: u for c, (u, _) in replies.items()}), replies


@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_a_round_is_what_numpy_says(alpha, monkeypatch):
    """w ← w − η ∇f(w − α ∇f(w)), of a quadratic (1 − α) (w − target)."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    state, _ = one_round(perfedavg(alpha))
    for name in NAMES:
        fitted = {}
        for client in WEIGHTS:
            target = trainer().targets[client][name].numpy().astype(float)

            def ahead(w, target=target):
                return (w - alpha * (w - target)) - target

            fitted[client] = descend(START[name].numpy(), ahead)
        near(state.adapter[name], averaged(fitted))


def test_without_a_step_ahead_it_is_fedavg_bit_for_bit():
    ours, replies = one_round(perfedavg(0.0))
    plain, _ = one_round(fedavg())
    assert same(ours.adapter, plain.adapter)
    assert all(home.payload == {} for _, home in replies.values())
    assert not same(one_round(perfedavg(0.1))[0].adapter, plain.adapter)


def test_the_step_ahead_is_minus_alpha_times_the_gradient_and_the_next_batch_is_asked_for():
    looks = []

    class Watching:
        def fit(self, client, order, start, aim, memory):
            looks.append(aim.look)
            return Fit(start)

    one_round(perfedavg(0.25), Watching())
    gradients = factors(8)
    for look in looks:
        assert look.fresh
        for name, move in look.ahead(gradients).items():
            near(move, -0.25 * gradients[name].numpy(), 1e-7)


def test_a_clients_own_model_is_the_global_one_trained_once_more():
    algorithm, asks = perfedavg(0.1), []

    def fit(start, pull=None, *, look=None, trains=None, again=""):
        asks.append((pull, look, trains, again))
        return Fit(factors(9))

    order = asked(algorithm, algorithm.server.init(START))
    assert same(algorithm.own(START, order, Home(), fit), factors(9))
    [(pull, look, trains, again)] = asks
    assert (pull, look, trains) == (None, None, None)
    assert again, "batches of its own, and an optimizer that is forgotten"


def test_clients_send_what_fedavgs_do():
    _, replies = one_round(perfedavg(0.1))
    for update, _ in replies.values():
        assert {role: tree.keys() for role, tree in update.payload.items()} == {ADAPTER: NAMES}
