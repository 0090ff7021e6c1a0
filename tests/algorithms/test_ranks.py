"""Clients of unlike ranks: each receives, trains and sends what its own rank holds, and no more."""

from dataclasses import replace

import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.flora import flora
from fedit.algorithms.hetlora import hetlora
from fedit.algorithms.ranks import with_ranks
from fedit.core.fitting import Fit
from fedit.core.lora import cut
from fedit.core.messages import ADAPTER, Update
from fedit.core.shares import combined
from fedit.core.tree import same
from fedit.core.wire import unpack
from fedit.engines.messages import order_sizes, pack_order, pack_update, unpack_order, update_size
from tests.factors import S, answers, asked, factors, trainer

RANKS = {"a": 1, "b": 2, "c": 4}
START = factors(1, 4)
METHODS = {"hetlora": hetlora(4), "flora": flora(S)}

each = pytest.mark.parametrize("name", METHODS)


def begun(name: str):
    algorithm = with_ranks(METHODS[name], RANKS, 4)
    return algorithm, asked(algorithm, algorithm.server.init(START))


@each
@pytest.mark.parametrize("client", RANKS)
def test_a_client_receives_its_own_size_only(name, client):
    _, order = begun(name)
    block = pack_order(order, client)
    seen = unpack_order(block)
    assert ADAPTER not in seen.public
    assert seen.personal.keys() == {client}
    assert same(seen.personal[client][ADAPTER], cut(START, RANKS[client]))
    assert order_sizes(order)(client) == len(block)
    for row in range(
        4
    ):  # the rows of A in order, as bytes: the first of them, and none of the rest
        value = START["up.lora_A.weight"][row].numpy().tobytes()
        assert (value in block) == (row < RANKS[client])


@each
@pytest.mark.parametrize("client", RANKS)
def test_a_client_sends_its_own_size_only(name, client):
    algorithm, order = begun(name)
    update, home = answers(algorithm, order, trainer(4))[client]
    payload, _ = unpack(pack_update(update))
    shapes = {n: t.shape for n, t in factors(0, RANKS[client]).items()}
    assert payload.keys() == {ADAPTER}
    assert {n: t.shape for n, t in payload[ADAPTER].items()} == shapes
    assert home.payload == {}


@each
def test_bytes_grow_with_the_rank_both_ways(name):
    algorithm, order = begun(name)
    replies = answers(algorithm, order, trainer(4))
    down, one = order_sizes(order), sum(t.nbytes for t in factors(0, 1).values())
    for low, high in (("a", "b"), ("b", "c")):
        more = (RANKS[high] - RANKS[low]) * one
        assert abs(down(high) - down(low) - more) < 100
        up = [update_size(replies[client][0]) for client in (low, high)]
        assert abs(up[1] - up[0] - more) < 100


@each
def test_the_trainer_sees_the_models_rank_with_zeros_beyond_the_clients(name):
    seen = {}

    class Watching:
        def fit(self, client, order, start, aim, memory):
            seen[client] = start
            return Fit(start)

    algorithm, order = begun(name)
    replies = answers(algorithm, order, Watching())
    for client, start in seen.items():
        assert {n: t.shape for n, t in start.items()} == {n: t.shape for n, t in START.items()}
        assert same(cut(start, RANKS[client]), cut(START, RANKS[client]))
        assert not start["up.lora_A.weight"][RANKS[client] :].any()
        assert not start["up.lora_B.weight"][:, RANKS[client] :].any()
        assert same(replies[client][0].payload[ADAPTER], cut(START, RANKS[client]))


@each
def test_an_update_of_another_rank_than_the_clients_is_refused(name):
    algorithm, order = begun(name)
    updates = [Update(client, 0, 0, {ADAPTER: factors(9, 2)}) for client in RANKS]
    share = combined(updates, order.cohort, order, algorithm)
    assert {failure.client for failure in share.failures} == {"a", "c"}
    assert {failure.reason for failure in share.failures} == {"shape"}
    assert share.metrics.keys() == {"b"}


def test_what_the_method_itself_sends_to_a_client_stays():
    extra = {"hint": {"x": torch.ones(1)}}
    inner = replace(
        fedavg(), prepare=lambda state, order: replace(order, personal={"a": extra, "b": extra})
    )
    algorithm = with_ranks(inner, RANKS, 4)
    order = asked(algorithm, algorithm.server.init(START))
    assert order.personal["a"].keys() == {"hint", ADAPTER}
    assert order.personal["c"].keys() == {ADAPTER}
