"""The grouped sum: its groups, and that who adds a group up, and when it comes, changes no bit."""

import random
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedit.algorithms.fedavg import fedavg
from fedit.core.errors import BrokenInvariant
from fedit.core.messages import ADAPTER, Failure, Order, Reply, Update
from fedit.core.population import Share
from fedit.core.shares import combined, cut, shares, told
from fedit.core.sums import Sum
from tests.toy import tree

RULE = fedavg().combine


def order(size: int) -> Order:
    names, ids = frozenset(tree(1)), [f"c{i}" for i in range(size)]
    weights = {client: 0.1 + i * 0.7 for i, client in enumerate(ids)}
    return Order(0, 0, 0, {ADAPTER: tree(1)}, weights, names, names)


def reply(client: str) -> Reply:
    seed = int(client[1:])
    if seed % 7 == 3:
        return Failure(client, "dropout")
    spoilt = {n: t / 0 for n, t in tree(seed).items()} if seed % 7 == 5 else tree(seed)
    return Update(client, 0, 0, {ADAPTER: spoilt}, {"loss": float(seed)})


def summed(answers, asked: Order) -> tuple[Sum, dict, list]:
    total, metrics, failures = RULE.start(asked), {}, []
    for share in shares(answers, asked, fedavg()):
        total = RULE.merge(total, share.total)
        metrics |= share.metrics
        failures += share.failures
    return total, metrics, failures


@given(st.integers(0, 500))
def test_groups_are_the_cohort_in_order_cut_evenly(size):
    cohort = [f"c{i}" for i in range(size)]
    groups = cut(cohort)
    assert [client for group in groups for client in group] == cohort
    assert len(groups) == min(size, 32)
    sizes = {len(group) for group in groups}
    assert not sizes or (min(sizes) >= 1 and max(sizes) - min(sizes) <= 1)


@pytest.mark.parametrize("size", [1, 5, 32, 33, 100])
def test_replies_and_finished_shares_in_any_order_give_the_same_bits(size):
    asked, chance = order(size), random.Random(size)
    usual = summed(map(reply, asked.cohort), asked)
    for _ in range(3):
        answers: list = []
        for group in cut(asked.cohort):
            whole = chance.random() < 0.5
            share = [combined(map(reply, group), group, asked, fedavg())]
            answers += share if whole else list(map(reply, group))
        chance.shuffle(answers)
        total, metrics, failures = summed(answers, asked)
        assert torch.equal(total.numbers[ADAPTER], usual[0].numbers[ADAPTER])
        assert (total.masses, metrics, list(metrics)) == (usual[0].masses, usual[1], list(usual[1]))
        assert {f.client: f.reason for f in failures} == {f.client: f.reason for f in usual[2]}
    assert {f.reason for f in usual[2]} <= {"dropout", "not finite"}


def test_the_sum_is_the_grouped_one_and_not_another():
    """Worked out from the decision's words: in a group one after another, then the groups in order."""
    asked, total = order(100), None
    for group in cut(asked.cohort):
        share = None
        for update in (u for u in map(reply, group) if isinstance(u, Update)):
            values = torch.cat([t.reshape(-1) for _, t in sorted(update.payload[ADAPTER].items())])
            if not bool(torch.isfinite(values).all()):
                continue
            product = values.double() * asked.weights[update.client]
            share = product if share is None else share + product
        total = share if total is None else total + share
    assert torch.equal(summed(map(reply, asked.cohort), asked)[0].numbers[ADAPTER], total)


def test_a_group_that_no_usable_reply_came_of_adds_nothing():
    asked = order(2)
    alone = summed([reply("c0"), Failure("c1", "error")], asked)[0]
    share = Share(("c1",), RULE.start(asked), {}, [Failure("c1", "error")])
    other = summed([share, reply("c0")], asked)[0]
    assert torch.equal(alone.numbers[ADAPTER], other.numbers[ADAPTER])
    assert alone.mass() == other.mass() == asked.weights["c0"]


@pytest.mark.parametrize("clients", [("c0",), ("c1", "c2"), ("z",)])
def test_a_share_that_is_no_group_of_the_round_stops_the_run(clients):
    asked = order(64)
    with pytest.raises(BrokenInvariant, match="none of a group"):
        list(shares([Share(clients, RULE.start(asked))], asked, fedavg()))


def test_a_group_that_comes_twice_stops_the_run():
    asked = order(64)
    share = combined(map(reply, ("c0", "c1")), ("c0", "c1"), asked, fedavg())
    with pytest.raises(BrokenInvariant):
        list(shares([share, replace(share)], asked, fedavg()))


def test_a_share_tells_of_each_of_its_clients():
    asked = order(64)
    share = combined(map(reply, ("c2", "c3")), ("c2", "c3"), asked, fedavg())
    assert told(share, asked) == [
        Update("c2", 0, 0, {}, {"loss": 2.0}),
        Failure("c3", "dropout"),
    ]
    assert told(reply("c3"), asked) == [reply("c3")]


def test_no_update_of_a_group_is_kept_when_the_next_is_made():
    alive: list[weakref.ref] = []
    most = 0

    def replies() -> Iterator[Reply]:
        nonlocal most
        for client in order(100).cohort:
            most = max(most, sum(ref() is not None for ref in alive))
            made = Update(client, 0, 0, {ADAPTER: tree(1)})
            alive.extend(weakref.ref(t) for t in made.payload[ADAPTER].values())
            yield made
            del made

    assert len(summed(replies(), order(100))[1]) == 100
    assert most <= len(tree(1))
