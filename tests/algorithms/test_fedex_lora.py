"""FedEx-LoRA (arXiv 2410.09432, equation 7): W + s B A is W + s times the mean of the products."""

import numpy as np
import pytest

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedex_lora import fedex_lora
from fedit.core.messages import ADAPTER, BASE
from fedit.core.tree import same
from fedit.engines.messages import order_sizes, update_size
from tests.factors import (
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
    total_of,
    trainer,
)

START = factors(1)
SENT = {client: factors(10 + n) for n, client in enumerate(WEIGHTS)}


def change(state, layer: str) -> np.ndarray:
    """What the model's weights differ by from those that were loaded."""
    return state.public[BASE][layer].numpy().astype(float) + S * ba(state.adapter, layer)


def begun():
    algorithm = fedex_lora(S)
    state = algorithm.server.init(START)
    return algorithm, state, asked(algorithm, state)


@pytest.mark.parametrize("layer", LAYERS)
def test_weights_change_by_the_mean_of_the_products(layer):
    algorithm, state, order = begun()
    after = step(algorithm, state, order, SENT)
    near(change(after, layer), S * mean_ba(SENT, layer), 1e-6)
    assert after.public[BASE][layer].shape == LAYERS[layer]
    averaged = step(fedavg(), fedavg().server.init(START), order, SENT)
    with pytest.raises(AssertionError):
        near(S * ba(averaged.adapter, layer), S * mean_ba(SENT, layer), 1e-2)


def test_the_factors_are_fedavgs_bit_for_bit():
    algorithm, state, order = begun()
    averaged = step(fedavg(), fedavg().server.init(START), order, SENT)
    assert same(step(algorithm, state, order, SENT).adapter, averaged.adapter)


def test_what_is_lost_is_the_residual_by_the_formula_of_the_spread():
    """Σ p B A − B̄ Ā = ½ Σ_ij p_i p_j (B_i − B_j)(A_i − A_j)."""
    algorithm, state, order = begun()
    after = step(algorithm, state, order, SENT)
    for layer in LAYERS:
        wanted = np.zeros(LAYERS[layer])
        for i, p in WEIGHTS.items():
            for j, q in WEIGHTS.items():
                spread = {name: SENT[i][name].double() - SENT[j][name].double() for name in SENT[i]}
                wanted += 0.5 * p * q * ba(spread, layer)
        near(after.public[BASE][layer], S * wanted, 1e-6)


def test_it_stays_exact_round_after_round_with_clients_that_train():
    algorithm, state, _ = begun()
    for _ in range(4):
        order = asked(algorithm, state)
        replies = answers(algorithm, order, trainer())
        after = step(algorithm, state, order, {c: update for c, (update, _) in replies.items()})
        fitted = {c: update.payload[ADAPTER] for c, (update, _) in replies.items()}
        for layer in LAYERS:
            base = state.public[BASE][layer].numpy().astype(float)
            near(change(after, layer), base + S * mean_ba(fitted, layer), 1e-6)
        state = after


@pytest.mark.parametrize("pace", [0.5, 1.5])
def test_with_another_pace_the_step_is_as_long_as_it_says(pace):
    algorithm, state, _ = begun()
    after = step(algorithm, state, asked(algorithm, state, pace), SENT)
    for layer in LAYERS:
        old, mean = S * ba(START, layer), S * mean_ba(SENT, layer)
        near(change(after, layer), old + pace * (mean - old), 1e-6)


def test_clients_that_agree_leave_nothing_over():
    algorithm, state, order = begun()
    after = step(algorithm, state, order, dict.fromkeys(WEIGHTS, SENT["a"]))
    for layer in LAYERS:
        assert float(after.public[BASE][layer].abs().max()) < 1e-6
        near(change(after, layer), S * ba(SENT["a"], layer), 1e-6)


def test_the_totals_memory_does_not_grow_with_the_cohort():
    algorithm, _, order = begun()
    total = total_of(algorithm, order, SENT)
    layers = sum(out * into for out, into in LAYERS.values())
    assert sorted(len(numbers) for numbers in total.numbers.values()) == sorted(
        [layers, sum(t.numel() for t in START.values())]
    )


def test_clients_receive_the_residual_and_send_factors_only():
    algorithm, _, order = begun()
    down = order_sizes(order)("a") - order_sizes(asked(fedavg(), fedavg().server.init(START)))("a")
    assert down >= 4 * sum(out * into for out, into in LAYERS.values())
    plain = answers(fedavg(), asked(fedavg(), fedavg().server.init(START)), trainer())
    ours = answers(algorithm, order, trainer())
    assert update_size(ours["a"][0]) == update_size(plain["a"][0])
