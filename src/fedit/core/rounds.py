"""The round loop: the paper's Algorithm 1 (FedIT, arXiv 2305.05644) over any algorithm and any engine."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedit.core.amounts import part_of
from fedit.core.errors import FeditError
from fedit.core.gate import expected, gate
from fedit.core.messages import Client, Failure, Metrics, Order, Reply, State
from fedit.core.seats import Algorithm, Engine, Select, Weigh
from fedit.core.seeds import generator


@dataclass(frozen=True, slots=True)
class Policy:
    """Who is asked and how many must reply: `minimum` is a count or a share of the cohort, `attempts` ≥ 1."""

    select: Select
    weigh: Weigh
    minimum: int | float = 1.0
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round: the new state, the order that led to it, who replied what, who failed and why."""

    state: State
    order: Order
    metrics: dict[str, Metrics]
    failures: list[Failure] = field(default_factory=list)


class TooFewReplies(FeditError):
    """A round got fewer usable replies than the plan's minimum, in every attempt it was given."""

    def __init__(self, order: Order, replied: int, needed: int, failures: Sequence[Failure]):
        first = ""
        if failures:
            first = (
                f"; {failures[0].client} failed first: {failures[0].reason}: {failures[0].detail}"
            )
        super().__init__(
            f"round {order.round + 1}: {replied} of {len(order.cohort)} clients replied in attempt "
            f"{order.attempt + 1}, federation.minimum asks for {needed}{first}. Nothing is lost: the last "
            "finished round is saved. Mend the cause, lower federation.minimum or raise "
            "federation.attempts (both may change on resume), then resume"
        )


def rounds(
    state: State,
    algorithm: Algorithm[Any],
    engine: Engine,
    policy: Policy,
    *,
    seed: int,
    until: int,
) -> Iterator[Round]:
    """Yield one finished round after another; the caller saves, scores and stops.

    Same arguments → same bits. Raises `TooFewReplies`.
    """
    population = engine.clients()
    while state.round < until:
        failures: list[Failure] = []
        for attempt in range(policy.attempts):
            order = make_order(state, attempt, algorithm, policy, population, seed)
            wanted = expected(order, algorithm.local.roles)
            total, metrics = algorithm.combine.start(order), dict[str, Metrics]()
            for reply in in_order(
                engine.ask(order), order.cohort
            ):  # streaming: one update at a time
                reply = gate(reply, order, wanted)
                if isinstance(reply, Failure):
                    failures.append(reply)
                    continue
                total = algorithm.combine.add(total, reply, order.weights[reply.client])
                metrics[reply.client] = reply.metrics
            needed = part_of(policy.minimum, len(order.cohort), up=True)
            if len(metrics) >= needed:
                break
        else:
            raise TooFewReplies(order, len(metrics), needed, failures)
        for guard in reversed(algorithm.guards):
            total = guard.open(total, order)
        state = replace(algorithm.server.step(state, total), round=state.round + 1)
        yield Round(state, order, metrics, failures)


def make_order(
    state: State,
    attempt: int,
    algorithm: Algorithm[Any],
    policy: Policy,
    population: Sequence[Client],
    seed: int,
) -> Order:
    """Draw the cohort of a round from the run's seed and say what it shall do."""
    rng = generator(seed, "cohort", state.round, attempt)
    weights = policy.weigh(policy.select(population, rng), population)
    trains, travels = algorithm.scope(state.round, frozenset(state.adapter))
    return Order(
        state.round, attempt, seed, state.public, weights.by_client, trains, travels, weights.pace
    )


def in_order(replies: Iterable[Reply], cohort: Sequence[str]) -> Iterator[Reply]:
    """Replies in cohort order, so that every engine adds in the same order and gives the same bits.

    A reply from outside the cohort or a second one from the same client becomes a Failure ("stranger",
    "duplicate"); a member that never replies becomes one at the end ("silent").
    """
    due, early, heard = list(reversed(cohort)), dict[str, Reply](), set[str]()
    for reply in replies:
        if reply.client not in cohort:
            yield Failure(reply.client, "stranger", "not in this round's cohort")
        elif reply.client in heard:
            yield Failure(reply.client, "duplicate", "only the first reply counts")
        else:
            heard.add(reply.client)
            early[reply.client] = reply
            while due and due[-1] in early:
                yield early.pop(due.pop())
    for client in reversed(due):
        yield early.pop(client, Failure(client, "silent", "no reply"))
