from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit.core.header import WireError
from fedit.core.messages import ADAPTER, Order, Update
from fedit.core.tree import same
from fedit.core.wire import pack
from fedit.engines.messages import (
    order_sizes,
    pack_order,
    pack_update,
    unpack_order,
    unpack_update,
    update_size,
)
from tests.toy import tree

IDS = ("first-client", "second-client", "third-client")
NAMES = frozenset(tree(1))
ORDER = Order(
    4,
    1,
    99,
    {ADAPTER: tree(1), "control": tree(2)},
    dict(zip(IDS, (0.1234567891, 0.2345678912, 0.3456789123), strict=True)),
    NAMES,
    frozenset([min(NAMES)]),
    0.75,
    {IDS[0]: {ADAPTER: tree(10), "own": tree(11)}, IDS[1]: {ADAPTER: tree(12)}},
)
UPDATE = Update(IDS[0], 4, 1, {ADAPTER: tree(3), "control": tree(4)}, {"loss": 0.1 + 0.2})


def equal(left, right) -> bool:
    return left.keys() == right.keys() and all(same(t, right[role]) for role, t in left.items())


@pytest.mark.parametrize("client", IDS)
def test_an_order_comes_back_as_one_client_may_see_it(client):
    got = unpack_order(pack_order(ORDER, client))
    assert equal(got.public, ORDER.public)
    assert got.weights == {client: ORDER.weights[client]}
    assert got.cohort == (client,)
    assert got.personal.keys() == ORDER.personal.keys() & {client}
    assert equal(got.personal.get(client, {}), ORDER.personal.get(client, {}))
    plain = {"public": {}, "weights": {}, "personal": {}}
    assert replace(got, **plain) == replace(ORDER, **plain)


def test_an_order_for_one_client_holds_nothing_of_another():
    for client in IDS:
        block = pack_order(ORDER, client)
        assert client.encode() in block
        assert repr(ORDER.weights[client]).encode() in block
        for other in set(IDS) - {client}:
            assert other.encode() not in block
            assert repr(ORDER.weights[other]).encode() not in block
            for role in ORDER.personal.get(other, {}).values():
                assert not any(t.numpy().tobytes() in block for t in role.values())
        for role in ORDER.personal.get(client, {}).values():
            assert all(t.numpy().tobytes() in block for t in role.values())


def test_an_update_comes_back():
    got = unpack_update(pack_update(UPDATE))
    assert equal(got.payload, UPDATE.payload)
    assert replace(got, payload={}) == replace(UPDATE, payload={})


@pytest.mark.parametrize("client", IDS)
def test_sizes_are_those_of_the_bytes(client):
    assert order_sizes(ORDER)(client) == len(pack_order(ORDER, client))
    update = replace(UPDATE, client=client, metrics={"a": 1e-300, "b": 3.0})
    assert update_size(update) == len(pack_update(update))


GOOD_UPDATE = {"client": "c", "round": 1, "attempt": 0, "metrics": {"loss": 1.0}}
GOOD_ORDER = {
    "round": 1,
    "attempt": 0,
    "seed": 0,
    "weights": {"c": 1},
    "pace": 1,
    "trains": ["a"],
    "travels": [],
}


def test_envelopes_are_good_before_they_are_spoilt():
    assert unpack_update(pack({}, GOOD_UPDATE)).metrics == {"loss": 1.0}
    assert unpack_order(pack({}, GOOD_ORDER)).trains == {"a"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"client": ["c"]}, "client"),
        ({"client": None}, "client"),
        ({"round": "1"}, "round"),
        ({"round": 1.5}, "round"),
        ({"attempt": True}, "attempt"),
        ({"metrics": [1.0]}, "metrics"),
        ({"metrics": {"loss": "low"}}, "loss"),
        ({"metrics": {"loss": None}}, "loss"),
        ({"metrics": {"loss": {}}}, "loss"),
        ({"payload": {}}, "payload"),
        ({"extra": 1}, "extra"),
    ],
)
def test_an_update_with_a_strange_envelope_is_refused(change, word):
    with pytest.raises(WireError, match=word):
        unpack_update(pack({}, {**GOOD_UPDATE, **change}))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"c": "1"}},
        {"weights": []},
        {"pace": None},
        {"seed": "0"},
        {"trains": [["a"]]},
        {"travels": "a"},
        {"public": {}},
    ],
)
def test_an_order_with_a_strange_envelope_is_refused(change):
    with pytest.raises(WireError, match=next(iter(change))):
        unpack_order(pack({}, {**GOOD_ORDER, **change}))


@pytest.mark.parametrize("key", GOOD_ORDER)
def test_an_envelope_that_lacks_a_key_is_refused(key):
    with pytest.raises(WireError, match="envelope holds"):
        unpack_order(pack({}, {k: v for k, v in GOOD_ORDER.items() if k != key}))
    with pytest.raises(WireError, match="envelope holds"):
        unpack_update(pack({}, {k: v for k, v in GOOD_UPDATE.items() if k != "client"}))


BLOCK = pack_update(replace(UPDATE, payload={ADAPTER: {"a": torch.ones(2)}}))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(BLOCK) - 1), st.integers(0, 255)), min_size=1, max_size=3)
)
def test_mutated_bytes_are_refused_or_an_update(changes):
    block = bytearray(BLOCK)
    for place, value in changes:
        block[place] = value
    for read in (unpack_update, unpack_order):
        try:
            got = read(bytes(block))
        except WireError:
            continue
        assert isinstance(got, Update | Order)
