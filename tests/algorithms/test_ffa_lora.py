"""FFA-LoRA (arXiv 2403.12313): A stands still, so the mean of B is the mean of the products."""

import pytest

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.ffa_lora import ffa_lora
from fedit.core.fitting import Fit
from fedit.core.messages import ADAPTER
from fedit.core.tree import only, same
from fedit.core.wire import unpack
from fedit.engines.messages import pack_update, update_size
from tests import toy as toys
from tests.factors import (
    A_NAMES,
    B_NAMES,
    LAYERS,
    NAMES,
    WEIGHTS,
    answers,
    asked,
    averaged,
    ba,
    descend,
    factors,
    mean_ba,
    near,
    step,
    towards,
    trainer,
)

START = factors(1)


def one_round(algorithm):
    state = algorithm.server.init(START)
    order = asked(algorithm, state)
    sent = {client: update for client, (update, _) in answers(algorithm, order, trainer()).items()}
    return step(algorithm, state, order, sent), sent


@pytest.mark.parametrize("round", [0, 1, 2])
def test_only_b_trains_and_only_b_travels(round):
    assert ffa_lora().scope(round, NAMES) == (B_NAMES, B_NAMES)


def test_one_round_is_what_numpy_says(monkeypatch):
    monkeypatch.setattr(toys, "NOISE", 0.0)
    state, _ = one_round(ffa_lora())
    for name in B_NAMES:
        aims = {client: towards(target[name]) for client, target in trainer().targets.items()}
        fitted = {client: descend(START[name].numpy(), aim) for client, aim in aims.items()}
        near(state.adapter[name], averaged(fitted))


def test_a_keeps_its_bits_for_as_long_as_the_run_lasts():
    algorithm = ffa_lora()
    state = algorithm.server.init(START)
    for _ in range(3):
        order = asked(algorithm, state)
        found = answers(algorithm, order, trainer())
        state = step(algorithm, state, order, {client: sent for client, (sent, _) in found.items()})
    assert same(only(state.adapter, A_NAMES), only(START, A_NAMES))
    assert not any(same({n: state.adapter[n]}, {n: START[n]}) for n in B_NAMES)


def test_the_mean_of_the_products_is_exact_and_fedavgs_is_not():
    state, sent = one_round(ffa_lora())
    whole = {client: {**START, **update.payload[ADAPTER]} for client, update in sent.items()}
    for layer in LAYERS:
        near(ba(state.adapter, layer), mean_ba(whole, layer), 1e-6)
    state, sent = one_round(fedavg())
    whole = {client: update.payload[ADAPTER] for client, update in sent.items()}
    with pytest.raises(AssertionError):
        near(ba(state.adapter, "up"), mean_ba(whole, "up"), 1e-3)


def test_the_upload_is_half_and_holds_no_a():
    _, half = one_round(ffa_lora())
    _, full = one_round(fedavg())
    for client in WEIGHTS:
        payload, _ = unpack(pack_update(half[client]))
        assert payload.keys() == {ADAPTER}
        assert payload[ADAPTER].keys() == B_NAMES
        numbers = [sum(t.nbytes for t in s[client].payload[ADAPTER].values()) for s in (half, full)]
        assert 2 * numbers[0] == numbers[1]
        assert update_size(full[client]) - update_size(half[client]) >= numbers[0]


def test_no_client_keeps_anything():
    order = asked(ffa_lora(), ffa_lora().server.init(START))
    for _, home in answers(ffa_lora(), order, trainer()).values():
        assert home.payload == {}


def test_what_a_client_changes_in_a_is_not_sent():
    """Even a trainer that moved A would not be heard."""

    class Restless:
        def fit(self, client, order, start, aim, memory):
            return Fit({name: t + 1 for name, t in start.items()})

    algorithm = ffa_lora()
    state = algorithm.server.init(START)
    order = asked(algorithm, state)
    found = answers(algorithm, order, Restless())
    after = step(algorithm, state, order, {client: sent for client, (sent, _) in found.items()})
    assert same(only(after.adapter, A_NAMES), only(START, A_NAMES))
