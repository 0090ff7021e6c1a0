import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedit.algorithms.fedavg import fedavg
from fedit.core.messages import ADAPTER, Client, Failure, Order, Reply, Update
from fedit.core.population import Weights
from fedit.core.rounds import Policy, Round, TooFewReplies, rounds
from fedit.core.shares import shares
from fedit.core.tree import Tree, same
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, by_examples
from tests.toy import Toy, last, toy_policy, tree

COHORT = ("a", "b", "c")
POPULATION = [Client(f"c{i}", 10 * i + 3, 1) for i in range(5)]


def sent(order: Order, client: str, adapter: Tree) -> Update:
    return Update(client, order.round, order.attempt, {ADAPTER: adapter}, {"loss": 1.0})


@dataclass
class Scripted:
    """An engine that answers as told, and remembers what it was asked."""

    reply: Callable[[Order, str], Reply | None]
    population: Sequence[Client] = tuple(POPULATION)
    orders: list[Order] = field(default_factory=list)
    taken_back: list[tuple[str, ...]] = field(default_factory=list)

    def clients(self) -> Sequence[Client]:
        return self.population

    def take_back(self, order: Order, clients: Sequence[str]) -> None:
        self.taken_back.append(tuple(clients))

    def ask(self, order: Order) -> Iterator[Reply]:
        self.orders.append(order)
        for client in order.cohort:
            reply = self.reply(order, client)
            if reply is not None:
                yield reply


def run(
    engine: Scripted, policy: Policy | None = None, until: int = 1, seed: int = 0
) -> list[Round]:
    algorithm = fedavg()
    start = algorithm.server.init(tree(1))
    policy = policy or toy_policy(1.0)
    return list(rounds(start, algorithm, engine, policy, seed=seed, until=until))


# ---- who replied, and when it is added


ORDER = Order(
    0, 0, 0, {ADAPTER: tree(1)}, dict.fromkeys(COHORT, 1.0), frozenset(tree(1)), frozenset(tree(1))
)


def reply(client: str, reason: str = "") -> Reply:
    return Failure(client, reason) if reason else Update(client, 0, 0, {ADAPTER: tree(2)})


def heard(replies: Sequence[Reply]) -> list[tuple[str, str]]:
    found = []
    for share in shares(replies, ORDER, fedavg()):
        found += [(client, "ok") for client in share.metrics]
        found += [(failure.client, failure.reason) for failure in share.failures]
    return found


@given(st.permutations(COHORT))
def test_any_order_of_arrival_comes_out_in_cohort_order(arrival):
    assert heard([reply(c) for c in arrival]) == [("a", "ok"), ("b", "ok"), ("c", "ok")]


def test_a_reply_is_passed_on_as_soon_as_those_before_it_are():
    arrived = []

    def stream() -> Iterator[Reply]:
        for client in ("b", "a", "c"):
            arrived.append(client)
            yield reply(client)

    passed = [(*s.clients, list(arrived)) for s in shares(stream(), ORDER, fedavg())]
    assert passed[:3] == [("a", ["b", "a"]), ("b", ["b", "a"]), ("c", ["b", "a", "c"])]


def test_who_never_replies_is_silent_and_holds_nobody_back():
    assert heard([reply("c"), reply("a")]) == [("a", "ok"), ("b", "silent"), ("c", "ok")]
    assert heard([]) == [("a", "silent"), ("b", "silent"), ("c", "silent")]


def test_only_the_first_reply_of_a_client_counts():
    twice = [reply("a"), reply("a"), reply("c"), reply("c"), reply("b")]
    assert sorted(heard(twice)) == [
        ("a", "duplicate"),
        ("a", "ok"),
        ("b", "ok"),
        ("c", "duplicate"),
        ("c", "ok"),
    ]
    assert ("a", "duplicate") in heard([reply("a", "error"), reply("a"), reply("b"), reply("c")])


def test_a_stranger_is_a_failure_and_changes_nothing_else():
    found = heard([reply("z"), reply("a"), reply("b"), reply("c"), reply("z")])
    assert [r for r in found if r[0] != "z"] == [("a", "ok"), ("b", "ok"), ("c", "ok")]
    assert found.count(("z", "stranger")) == 2


@given(st.lists(st.sampled_from("abcz")))
def test_every_member_is_accounted_for_exactly_once_whatever_arrives(arrivals):
    found = heard([reply(c) for c in arrivals])
    counted = [client for client, word in found if word in ("ok", "silent")]
    assert counted == list(COHORT)
    assert sum(word == "ok" for _, word in found) == len(set(arrivals) & set(COHORT))
    assert len(found) == len(arrivals) + len(set(COHORT) - set(arrivals))


# ---- too few replies


def test_a_failed_round_is_repeated_with_another_cohort_and_its_failures_kept():
    def unlucky(order: Order, client: str) -> Reply:
        if order.attempt == 0:
            return Failure(client, "error", "the first time")
        return sent(order, client, tree(5))

    engine = Scripted(unlucky)
    done = run(engine, toy_policy(2, attempts=3))
    assert [order.attempt for order in engine.orders] == [0, 1]
    assert set(engine.orders[0].cohort) != set(engine.orders[1].cohort)
    assert done[0].order is engine.orders[1]
    assert [f.client for f in done[0].failures] == list(engine.orders[0].cohort)
    assert same(last(done), tree(5))


def test_too_few_replies_in_every_attempt_end_the_run_with_a_remedy():
    engine = Scripted(lambda order, client: Failure(client, "error", "disk is full"))
    with pytest.raises(TooFewReplies) as caught:
        run(engine, toy_policy(3, minimum=2, attempts=3))
    assert len(engine.orders) == 3
    for word in ("round 1", "0 of 3", "attempt 3", "federation.minimum asks for 2", "disk is full"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("minimum", "enough"), [(0.5, 3), (0.6, 3), (0.61, 4), (1.0, 5), (1, 1), (9, 5)]
)
def test_the_minimum_is_met_exactly(minimum, enough):
    """A share of five clients is rounded up; a count is capped at the cohort."""

    def only_first(replying: int) -> Scripted:
        return Scripted(
            lambda order, c: sent(order, c, tree(2)) if c in order.cohort[:replying] else None
        )

    policy = toy_policy(1.0, minimum=minimum)
    done = run(only_first(enough), policy)
    assert [f.reason for f in done[0].failures] == ["silent"] * (5 - enough)
    with pytest.raises(TooFewReplies):
        run(only_first(enough - 1), policy)


def test_what_a_failed_attempt_sent_is_forgotten():
    def half(order: Order, client: str) -> Reply:
        if order.attempt == 0 and client != order.cohort[0]:
            return Failure(client, "error")
        return sent(order, client, tree(66 if order.attempt == 0 else 5))

    done = run(Scripted(half), toy_policy(3, attempts=2))
    assert same(last(done), tree(5))
    assert set(done[0].metrics) == set(done[0].order.cohort)


# ---- the mean


def fixed(order: Order, client: str) -> Update:
    return sent(order, client, tree(100 + int(client[1:])))


def golden(weights: dict[str, float]) -> dict[str, np.ndarray]:
    """Σ a_k w_k / Σ a_k, worked out by numpy."""
    whole = sum(weights.values())
    mean = {}
    for name in tree(1):
        values = [tree(100 + int(c[1:]))[name].numpy().astype(np.float64) for c in weights]
        shares = [w / whole for w in weights.values()]
        mean[name] = np.einsum("k,kij->ij", np.array(shares), np.stack(values))
    return mean


def assert_rounded(got: Tree, exact: dict[str, np.ndarray]) -> None:
    """Each value is the fp32 number nearest to the exact one."""
    for name, value in exact.items():
        error = np.abs(got[name].numpy().astype(np.float64) - value)
        assert (error <= 2.0**-24 * np.abs(value) * (1 + 1e-6)).all(), name


@given(st.lists(st.floats(1e-3, 1e6), min_size=5, max_size=5))
def test_the_global_adapter_is_the_weighted_mean(weights):
    by_client = {c.id: w for c, w in zip(POPULATION, weights, strict=True)}
    policy = Policy(Uniform(1.0), lambda cohort, population: Weights(by_client))
    assert_rounded(last(run(Scripted(fixed), policy)), golden(by_client))


@pytest.mark.parametrize("pace", [0.0, 0.25, 1.0, 1.7])
def test_pace_says_how_far_the_server_moves_towards_the_mean(pace):
    weights = {c.id: float(c.examples) for c in POPULATION}
    policy = Policy(Uniform(1.0), lambda cohort, population: Weights(weights, pace))
    start = {name: t.numpy().astype(np.float64) for name, t in tree(1).items()}
    exact = {n: start[n] + pace * (mean - start[n]) for n, mean in golden(weights).items()}
    assert_rounded(last(run(Scripted(fixed), policy)), exact)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_one_poisoned_client_is_refused_and_the_mean_is_that_of_the_rest(poison):
    def poisoned(order: Order, client: str) -> Update:
        good = fixed(order, client)
        if client != "c3":
            return good
        spoilt = {n: t.index_fill(0, torch.tensor(0), poison) for n, t in tree(103).items()}
        return replace(good, payload={ADAPTER: spoilt})

    done = run(Scripted(poisoned), toy_policy(1.0, minimum=0.5))
    rest = {c.id: float(c.examples) for c in POPULATION if c.id != "c3"}
    assert [(f.client, f.reason) for f in done[0].failures] == [("c3", "not finite")]
    assert set(done[0].metrics) == set(rest)
    assert_rounded(last(done), golden(rest))


def test_a_stranger_and_a_second_reply_weigh_nothing():
    class Crowded(Scripted):
        def ask(self, order: Order) -> Iterator[Reply]:
            for one in super().ask(order):
                yield replace(one, client="mallory")
                yield one
                yield replace(one, payload={ADAPTER: tree(9)})

    usual, crowded = run(Scripted(fixed)), run(Crowded(fixed))
    assert same(last(usual), last(crowded))
    words = sorted(f.reason for f in crowded[0].failures)
    assert words == ["duplicate"] * 5 + ["stranger"] * 5


def test_updates_are_streamed_one_is_gone_before_the_next_but_one_is_made():
    alive: list[weakref.ref] = []
    most = 0

    def watched(order: Order, client: str) -> Update:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive))
        made = fixed(order, client)
        alive.extend(weakref.ref(t) for t in made.payload[ADAPTER].values())
        return made

    many = [Client(f"c{i}", 1, 1) for i in range(20)]
    done = run(Scripted(watched, many))
    assert len(done[0].metrics) == 20
    assert most == len(tree(1))  # the update in hand, and no older one


# ---- the loop


def test_a_round_reports_its_state_order_and_metrics():
    done = run(Scripted(fixed), toy_policy(2), until=3)
    assert [one.state.round for one in done] == [1, 2, 3]
    assert [one.order.round for one in done] == [0, 1, 2]
    assert all(list(one.metrics) == list(one.order.cohort) for one in done)
    assert all(one.metrics[c] == {"loss": 1.0} for one in done for c in one.order.cohort)


def test_the_caller_stops_the_run_by_not_asking_for_more():
    engine = Scripted(fixed)
    algorithm = fedavg()
    start = algorithm.server.init(tree(1))
    loop = rounds(start, algorithm, engine, toy_policy(2), seed=0, until=5)
    next(loop)
    assert len(engine.orders) == 1
    assert list(rounds(start, algorithm, engine, toy_policy(2), seed=0, until=0)) == []


def test_nobody_is_asked_for_weights_that_a_reply_claims(tmp_path):
    """A client that says it has 10⁹ examples weighs what it was enrolled with."""

    def boaster(order: Order, client: str) -> Update:
        return replace(fixed(order, client), metrics={"examples": 1e9, "weight": 1e9})

    assert same(last(run(Scripted(fixed))), last(run(Scripted(boaster))))


def test_an_order_tells_the_weights_of_the_policy():
    engine = Scripted(fixed)
    run(engine, Policy(Uniform(1.0), Renormalised(by_examples)))
    assert engine.orders[0].weights == {c.id: float(c.examples) for c in POPULATION}
    assert engine.orders[0].pace == 1.0


def test_the_toy_learns(tmp_path):
    """The mean adapter comes nearer to the mean target: the stand-in trains at all."""
    toy = Toy(tmp_path)
    done = toy.run(fedavg(), policy=toy_policy(1.0), until=8)

    def distance(adapter: Tree) -> float:
        targets = toy.trainer.targets.values()
        return sum(float((adapter[n] - t[n]).square().sum()) for t in targets for n in adapter)

    assert distance(last(done)) < 0.9 * distance(tree(1))
