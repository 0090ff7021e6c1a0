"""FedPer (arXiv 1912.00818) and FedRep (2102.07078): what is private never travels."""

import pytest

from fedit.algorithms.fedrep import fedper, fedrep
from fedit.core.errors import InputError
from fedit.core.messages import ADAPTER, KEPT
from fedit.core.tree import only, same
from fedit.core.wire import unpack
from fedit.engines.messages import pack_order, pack_update
from fedit.recipe import make_plan
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
    towards,
    trainer,
)

START = factors(1)
PRIVATE = frozenset(name for name in NAMES if name.startswith("up."))
METHODS = {"fedper": fedper(["up."]), "fedrep": fedrep(["up."])}

each = pytest.mark.parametrize("name", METHODS)


def rounds(algorithm, count: int, toy=None):
    """Each round's order, replies with homes, and the state after."""
    state, homes, found = algorithm.server.init(START), {}, []
    for _ in range(count):
        order = asked(algorithm, state)
        replies = answers(algorithm, order, toy or trainer(), homes)
        homes = {client: home for client, (_, home) in replies.items()}
        state = step(algorithm, state, order, {c: update for c, (update, _) in replies.items()})
        found.append((order, replies, state))
    return found


@each
def test_private_names_never_travel(name):
    algorithm = METHODS[name]
    assert algorithm.scope(0, NAMES) == algorithm.scope(5, NAMES) == (NAMES, NAMES - PRIVATE)
    for order, replies, state in rounds(algorithm, 3):
        wire = b"".join(pack_order(order, client) for client in order.cohort)
        wire += b"".join(pack_update(update) for update, _ in replies.values())
        for update, home in replies.values():
            payload, _ = unpack(pack_update(update))
            assert {role: t.keys() for role, t in payload.items()} == {ADAPTER: NAMES - PRIVATE}
            assert home.payload[KEPT].keys() == PRIVATE
            for value in home.payload[KEPT].values():
                assert value.numpy().tobytes() not in wire
            assert update.payload[ADAPTER]["down.lora_A.weight"].numpy().tobytes() in wire
        assert same(only(state.adapter, PRIVATE), only(START, PRIVATE))


@each
def test_two_rounds_are_what_numpy_says(name, monkeypatch):
    """Both parts train from where they are; the toy's parts do not meet, so the phases come to the same."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    *_, (_, replies, state) = rounds(METHODS[name], 2)
    targets = trainer().targets
    for key in NAMES:
        own = {client: START[key].numpy() for client in WEIGHTS}
        for _ in range(2):
            own = {c: descend(own[c], towards(targets[c][key])) for c in WEIGHTS}
            if key not in PRIVATE:
                own = dict.fromkeys(WEIGHTS, averaged(own))
        if key in PRIVATE:
            for client, (_, home) in replies.items():
                near(home.payload[KEPT][key], own[client])
        else:
            near(state.adapter[key], own["a"])


def phases(algorithm, count: int = 1):
    """What was trained, from where, and to where, of client a."""
    toy, seen = trainer(), []
    fit = toy.fit

    def spied(client, order, start, aim, memory):
        found = fit(client, order, start, aim, memory)
        if client == "a":
            seen.append((aim, order.trains if aim.trains is None else aim.trains, start, found))
        return found

    toy.fit = spied
    rounds(algorithm, count, toy)
    return seen


def test_fedper_trains_all_of_it_at_once():
    [(aim, trains, _, _)] = phases(METHODS["fedper"])
    assert trains == NAMES
    assert not aim.again


def test_fedrep_trains_first_the_private_part_and_then_from_there_the_shared_one():
    (head, private, start, first), (body, shared, then, second) = phases(METHODS["fedrep"])
    assert private == PRIVATE
    assert shared == NAMES - PRIVATE
    assert head.again
    assert not body.again
    assert same(start, START)
    assert same(only(first.fitted, shared), only(START, shared)), "the shared part stood still"
    assert same(then, first.fitted)
    assert same(only(second.fitted, private), only(first.fitted, private))


@each
def test_the_next_round_begins_with_the_shared_mean_and_the_own_private_part(name):
    (_, replies, state), _ = rounds(METHODS[name], 2)
    starts = [start for _, _, start, _ in phases(METHODS[name], 2)]
    later = starts[len(starts) // 2]
    assert same(only(later, PRIVATE), replies["a"][1].payload[KEPT])
    assert same(only(later, NAMES - PRIVATE), only(state.adapter, NAMES - PRIVATE))


@each
def test_nothing_shared_and_unknown_names_are_refused(name):
    made = {"fedper": fedper, "fedrep": fedrep}[name]
    with pytest.raises(InputError, match=r"algorithm\.personal: it names every parameter"):
        made(["lora_A", "lora_B"]).scope(0, NAMES)
    with pytest.raises(InputError, match=r"algorithm\.personal: 'head' is in no .* down\.lora_A"):
        made(["up.", "head"]).scope(0, NAMES)


@each
@pytest.mark.parametrize("personal", [{}, {"personal": []}])
def test_a_plan_that_shares_everything_is_refused(name, personal):
    tree = {"model": {"config": {"model_type": "llama"}}, "data": {"train": "microworld"}}
    with pytest.raises(InputError, match=r"algorithm\.personal"):
        make_plan({**tree, "algorithm": {"name": name, **personal}})
