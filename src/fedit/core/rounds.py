"""The round loop: the paper's Algorithm 1 (FedIT, arXiv 2305.05644) over any algorithm and any engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedit.core.amounts import part_of
from fedit.core.errors import FeditError
from fedit.core.messages import Client, Failure, Metrics, Order, Packed, State
from fedit.core.norms import NO_BOUNDS, Bounds
from fedit.core.population import Engine, Select, Weigh
from fedit.core.seats import Algorithm, Sent
from fedit.core.seeds import generator
from fedit.core.shares import shares


@dataclass(frozen=True, slots=True)
class Policy:
    """Who is asked and how many must reply: `minimum` is a count or a share of the cohort, `attempts` ≥ 1.

    `bounds` say how large an update may be.
    """

    select: Select
    weigh: Weigh
    minimum: int | float = 1.0
    attempts: int = 1
    bounds: Bounds = NO_BOUNDS


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round: the new state, the order that led to it, who replied what, who failed and why.

    `told` is what the algorithm measured of it.
    """

    state: State
    order: Order
    metrics: dict[str, Metrics]
    failures: list[Failure] = field(default_factory=list)
    told: Metrics = field(default_factory=dict)


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
    while state.round < until:
        sent = algorithm.down(state)
        failures: list[Failure] = []
        population = engine.clients()  # over a network it may grow
        for attempt in range(policy.attempts):
            order = make_order(state, attempt, algorithm, policy, population, seed, sent)
            total, metrics = algorithm.combine.start(order), dict[str, Metrics]()
            for share in shares(engine.ask(order), order, algorithm):  # streaming, in cohort order
                total = algorithm.combine.merge(total, share.total)
                metrics |= share.metrics
                failures += share.failures
            needed = part_of(policy.minimum, len(order.cohort), up=True)
            if len(metrics) >= needed:
                break
        else:
            raise TooFewReplies(order, len(metrics), needed, failures)
        if left_out := [client for client in order.cohort if client not in metrics]:
            engine.take_back(order, left_out)
        for guard in reversed(algorithm.guards):
            total = guard.settle(total, order)
        stepped = algorithm.server.step(sent.state, total, order)
        private = {**stepped.private, **sent.memory}
        stepped = replace(stepped, round=state.round + 1, private=private)
        stepped = policy.bounds.remember(state, stepped, metrics, order)
        told = algorithm.measure(sent.state, stepped, total, order)
        state = stepped
        yield Round(state, order, metrics, failures, told)


def make_order(
    state: State,
    attempt: int,
    algorithm: Algorithm[Any],
    policy: Policy,
    population: Sequence[Client],
    seed: int,
    sent: Sent | None = None,
) -> Order:
    """Draw the cohort of a round from the run's seed and say what it shall do.

    `sent` is the state as it goes out, where that is known already.
    """
    sent = sent or algorithm.down(state)
    state = sent.state
    rng = generator(seed, "cohort", state.round, attempt)
    weights = policy.weigh(policy.select(population, rng), population)
    trains, travels = algorithm.scope(state.round, frozenset(state.adapter))
    usual = Order(
        state.round, attempt, seed, state.public, weights.by_client, trains, travels, weights.pace
    )
    caps = policy.bounds.caps(state, algorithm.local.roles)
    order = replace(algorithm.prepare(state, usual), caps=caps)
    if sent.packed is None:
        return order
    packed = {  # what was not replaced meanwhile
        role: tree
        for role, tree in sent.packed.payload.items()
        if order.public.get(role) is state.public[role]
    }
    return replace(order, packed=Packed(sent.packed.code, packed))
