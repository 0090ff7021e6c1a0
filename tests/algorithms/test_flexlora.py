"""FlexLoRA (arXiv 2402.11505, section 3): the mean of the products, cut to each client's rank by SVD."""

import numpy as np
import pytest

from fedit.algorithms.flexlora import flexlora
from fedit.algorithms.ranks import with_ranks
from fedit.core.messages import ADAPTER, received_by
from tests.factors import LAYERS, WEIGHTS, asked, ba, factors, mean_ba, near, step

RANKS = {"a": 1, "b": 2, "c": 3}
SENT = {client: factors(10 + rank, rank) for client, rank in RANKS.items()}


def after(rank: int, sent, pace: float = 1.0):
    """The method for these ranks, and its state after a round."""
    algorithm = with_ranks(flexlora(), {c: min(r, rank) for c, r in RANKS.items()}, rank)
    state = algorithm.server.init(factors(1, rank))
    return algorithm, step(algorithm, state, asked(algorithm, state, pace), sent)


def tail(matrix: np.ndarray, rank: int) -> float:
    """Σ σ_i² over what a rank leaves out."""
    return float(np.square(np.linalg.svd(matrix, compute_uv=False)[rank:]).sum())


@pytest.mark.parametrize("layer", LAYERS)
def test_it_is_exact_where_the_rank_is_that_of_the_mean(layer):
    alike = dict.fromkeys(WEIGHTS, factors(5, 2))
    _, state = after(3, alike)
    near(ba(state.adapter, layer), mean_ba(alike, layer), 1e-6)
    low = {c: factors(5 + n, 1) for n, c in enumerate(WEIGHTS)}  # three of rank 1: rank 3 at most
    _, state = after(3, low)
    near(ba(state.adapter, layer), mean_ba(low, layer), 1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_else_it_errs_by_the_singular_values_left_out(layer):
    _, state = after(3, SENT)
    wanted = mean_ba(SENT, layer)
    error = float(np.square(wanted - ba(state.adapter, layer)).sum())
    assert tail(wanted, 3) > 1e-3
    assert error == pytest.approx(tail(wanted, 3), rel=1e-5)


@pytest.mark.parametrize("client", RANKS)
def test_each_client_receives_the_best_of_its_own_rank(client):
    algorithm, state = after(3, SENT)
    received = received_by(client, asked(algorithm, state))
    for layer in LAYERS:
        assert received[f"{layer}.lora_A.weight"].shape[0] == RANKS[client]
        wanted = mean_ba(SENT, layer)
        error = float(np.square(wanted - ba(received, layer)).sum())
        assert error == pytest.approx(tail(wanted, RANKS[client]), rel=1e-5)


def test_directions_come_in_order_of_strength():
    _, state = after(3, SENT)
    for layer in LAYERS:
        lengths = state.adapter[f"{layer}.lora_B.weight"].norm(dim=0)
        wanted = np.linalg.svd(mean_ba(SENT, layer), compute_uv=False)[:3]
        near(lengths, wanted, 1e-6)


def test_with_another_pace_it_steps_between_the_products():
    start, alike = factors(1, 3), dict.fromkeys(WEIGHTS, factors(5, 1))
    _, state = after(3, alike, pace=0.5)
    for layer in LAYERS:
        old, mean = ba(start, layer), mean_ba(alike, layer)
        wanted = old + 0.5 * (mean - old)  # of rank 4, so the weakest direction is left out
        error = float(np.square(wanted - ba(state.adapter, layer)).sum())
        assert error == pytest.approx(tail(wanted, 3), rel=1e-4)


def test_layers_smaller_than_the_rank_are_filled_up():
    sent = {c: factors(20 + n, 7) for n, c in enumerate(WEIGHTS)}  # sides of 5 and 9
    algorithm = flexlora()
    state = algorithm.server.init(factors(1, 7))
    state = step(algorithm, state, asked(algorithm, state), sent)
    assert {n: t.shape for n, t in state.public[ADAPTER].items()} == {
        n: t.shape for n, t in factors(1, 7).items()
    }
    for layer in LAYERS:
        near(ba(state.adapter, layer), mean_ba(sent, layer), 1e-6)
