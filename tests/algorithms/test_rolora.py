"""RoLoRA (arXiv 2502.01755, Algorithm 1): B and A take turns, and every round is exact."""

import pytest

from fedit.algorithms.rolora import rolora
from fedit.core.messages import ADAPTER
from fedit.core.tree import only, same
from fedit.core.wire import unpack
from fedit.engines.messages import pack_update
from tests import toy as toys
from tests.factors import (
    A_NAMES,
    B_NAMES,
    LAYERS,
    NAMES,
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
TURNS = [B_NAMES, A_NAMES, B_NAMES, A_NAMES]


def rounds(count: int):
    """(state before, updates, state after) of each round."""
    algorithm = rolora()
    state, found = algorithm.server.init(START), []
    for _ in range(count):
        order = asked(algorithm, state)
        sent = {c: update for c, (update, _) in answers(algorithm, order, trainer()).items()}
        after = step(algorithm, state, order, sent)
        found.append((state, sent, after))
        state = after
    return found


def test_the_first_round_trains_b_the_second_a_and_so_on():
    assert [rolora().scope(n, NAMES) for n in range(4)] == [(turn, turn) for turn in TURNS]


def test_the_factor_that_rests_keeps_its_bits_and_the_other_moves():
    for (before, _, after), turn in zip(rounds(4), TURNS, strict=True):
        rests = NAMES - turn
        assert same(only(after.adapter, rests), only(before.adapter, rests))
        assert not any(same({n: after.adapter[n]}, {n: before.adapter[n]}) for n in turn)


def test_every_rounds_product_is_exact():
    for before, sent, after in rounds(4):
        whole = {c: {**before.adapter, **u.payload[ADAPTER]} for c, u in sent.items()}
        for layer in LAYERS:
            near(ba(after.adapter, layer), mean_ba(whole, layer), 1e-6)


def test_only_the_factor_whose_turn_it_is_is_sent():
    for (_, sent, _), turn in zip(rounds(4), TURNS, strict=True):
        for update in sent.values():
            payload, _ = unpack(pack_update(update))
            assert {role: tree.keys() for role, tree in payload.items()} == {ADAPTER: turn}


@pytest.mark.parametrize("number", [0, 1])
def test_a_round_is_what_numpy_says(number, monkeypatch):
    monkeypatch.setattr(toys, "NOISE", 0.0)
    before, _, after = rounds(2)[number]
    for name in TURNS[number]:
        start = before.adapter[name].numpy()
        fitted = {c: descend(start, towards(t[name])) for c, t in trainer().targets.items()}
        near(after.adapter[name], averaged(fitted))
