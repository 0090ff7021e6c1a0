"""FLoRA (arXiv 2409.05976, section 3.2): stacked factors go into the base, for clients of any rank."""

import numpy as np
import pytest
import torch

from fedit.algorithms.flora import flora
from fedit.algorithms.ranks import with_ranks
from fedit.core.messages import ADAPTER, BASE
from fedit.core.tree import same
from tests.factors import (
    A_NAMES,
    B_NAMES,
    LAYERS,
    WEIGHTS,
    S,
    answers,
    asked,
    ba,
    factors,
    mean_ba,
    near,
    step,
    trainer,
)

RANKS = {"a": 1, "b": 2, "c": 4}
START = factors(1, 4)
SENT = {client: factors(10 + rank, rank) for client, rank in RANKS.items()}


def begun():
    algorithm = with_ranks(flora(S), RANKS, 4)
    state = algorithm.server.init(START)
    return algorithm, state, asked(algorithm, state)


def stacked(layer: str, near_by: bool) -> np.ndarray:
    """The paper's B and A, stacked; shares on B alone, or `near_by` on A as well."""
    b, a = [], []
    for client, p in WEIGHTS.items():
        own = SENT[client]
        b.append(p * own[f"{layer}.lora_B.weight"].numpy().astype(float))
        a.append((p if near_by else 1) * own[f"{layer}.lora_A.weight"].numpy().astype(float))
    return np.hstack(b) @ np.vstack(a)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_base_takes_up_what_the_stacks_multiply_to(layer):
    algorithm, state, order = begun()
    found = step(algorithm, state, order, SENT).public[BASE][layer]
    near(found, S * mean_ba(SENT, layer), 1e-6)
    near(found, S * stacked(layer, near_by=False), 1e-6)
    with pytest.raises(AssertionError):  # p_k² would come out
        near(found, S * stacked(layer, near_by=True), 1e-2)


def test_the_adapter_begins_anew_and_changes_nothing():
    algorithm, state, order = begun()
    after = step(algorithm, state, order, SENT)
    for name, value in after.adapter.items():
        assert value.shape == START[name].shape
        if name in B_NAMES:
            assert not value.any()
        else:
            bound = value.shape[1] ** -0.5
            assert float(value.abs().max()) <= bound
            assert float(value.std()) == pytest.approx(bound / 3**0.5, rel=0.4)
            assert not torch.equal(value, START[name])


def test_every_round_draws_an_a_of_its_own_and_a_repeated_one_the_same():
    algorithm, state, order = begun()
    first = step(algorithm, state, order, SENT)
    assert same(first.adapter, step(algorithm, state, order, SENT).adapter)
    second = step(algorithm, first, asked(algorithm, first), SENT)
    assert not any(torch.equal(first.adapter[n], second.adapter[n]) for n in A_NAMES)


def test_the_base_grows_by_every_rounds_mean():
    algorithm, state, _ = begun()
    wanted = {layer: np.zeros(shape) for layer, shape in LAYERS.items()}
    for _ in range(3):
        order = asked(algorithm, state)
        replies = answers(algorithm, order, trainer(4))
        fitted = {c: update.payload[ADAPTER] for c, (update, _) in replies.items()}
        state = step(algorithm, state, order, {c: u for c, (u, _) in replies.items()})
        for layer in LAYERS:
            wanted[layer] += S * mean_ba(fitted, layer)
            near(state.public[BASE][layer], wanted[layer], 1e-6)


def test_half_the_pace_is_half_the_change():
    algorithm, state, _ = begun()
    after = step(algorithm, state, asked(algorithm, state, 0.5), SENT)
    for layer in LAYERS:
        near(after.public[BASE][layer], 0.5 * S * mean_ba(SENT, layer), 1e-6)


def test_one_client_loses_nothing():
    algorithm = flora(S)
    state = algorithm.server.init(START)
    after = step(algorithm, state, asked(algorithm, state), dict.fromkeys(WEIGHTS, SENT["b"]))
    for layer in LAYERS:
        near(after.public[BASE][layer], S * ba(SENT["b"], layer), 1e-6)
