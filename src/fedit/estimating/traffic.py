"""The run's own rounds, drawn in advance: who trains, on how many tokens, and how many bytes travel."""

import json
import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch

from fedit.build import Job
from fedit.core.gate import expected
from fedit.core.guards import sealed
from fedit.core.lora import rank_of
from fedit.core.messages import ADAPTER, Metrics, Order, Update
from fedit.core.rounds import make_order
from fedit.core.tree import Tree
from fedit.engines.messages import order_sizes, update_size
from fedit.studies.budget import samples_in


@dataclass(frozen=True, slots=True)
class Share:
    """One client's part of a round: optimizer steps, samples, real tokens, terms of the loss."""

    steps: int
    samples: int
    tokens: float
    terms: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """Sums over the run: replies, steps, real tokens, bytes; averages over dropouts and orders of rows."""

    replies: float
    steps: float
    tokens: float
    down: float
    up: float


def shares(job: Job) -> dict[str, Share]:
    """What each client does in a round in which it is asked."""
    local, found = job.plan.local, {}
    for client, rows in job.trainer.examples.items():
        steps = local.steps or math.ceil(len(rows) / local.batch) * (local.epochs or 1)
        samples = samples_in(steps, len(rows), local.batch)
        lengths = [len(row.ids) for row in rows]
        terms = [job.trainer.objective.terms([row]) for row in rows]
        odds, times = job.trainer.odds.get(client), samples / len(rows)
        if odds is None:
            tokens, learned = times * sum(lengths), times * sum(terms)
        else:
            tokens, learned = samples * float(odds @ lengths), samples * float(odds @ terms)
        found[client] = Share(steps, samples, tokens, learned)
    return found


def replay(job: Job, tree: Tree) -> Traffic:
    """Draw every round's cohort as the run will, and count its messages, were `tree` the adapter.

    Rounds that would have to be repeated are not foreseen.
    """
    plan, state, parts = job.plan, job.algorithm.server.init(tree), shares(job)
    sizes, totals = _Sizes(job), [0.0] * 5
    for round in range(plan.federation.rounds):
        order = make_order(
            replace(state, round=round),
            0,
            job.algorithm,
            job.policy,
            job.engine.clients(),
            plan.seed,
        )
        for client in order.cohort:
            part = parts[client]
            counted = (1, part.steps, part.tokens, *sizes.of(order, client, part))
            totals = [total + more for total, more in zip(totals, counted, strict=True)]
    answering = 1 - plan.federation.dropout
    return Traffic(*(total * answering for total in totals))


def blank_update(job: Job, order: Order, client: str, part: Share) -> Update:
    """An update of the right names and shapes; loss and seconds, not known yet, are long numbers."""
    plain = expected(order, job.algorithm.local.roles, client)
    wanted = sealed(job.algorithm.guards, plain)
    payload = {
        role: {n: torch.empty(s, dtype=d, device="meta") for n, (s, d) in spec.items()}
        for role, spec in wanted.items()
    }
    metrics: Metrics = {
        "loss": 10 / 3,
        **dict.fromkeys(job.trainer.objective.tells, 1 / 3),
        job.trainer.objective.unit: float(round(part.terms)),
        "tokens": float(round(part.tokens)),
        "samples": float(part.samples),
        "steps": float(part.steps),
        "seconds": 1 / 3,
    }
    return Update(client, order.round, order.attempt, payload, metrics)


class _Sizes:
    """Sizes of messages, each kind measured once: what differs between clients is a few digits."""

    def __init__(self, job: Job):
        self._job = job
        self._known: dict[Hashable, tuple[int, int]] = {}

    def of(self, order: Order, client: str, part: Share) -> tuple[int, int]:
        """Bytes down and up."""
        digits = [client, client, order.round, order.weights[client], order.pace]
        rank = rank_of(order.personal.get(client, {}).get(ADAPTER, {}))
        key = (_length(digits), _length(client), part, rank, order.trains, order.travels)
        if key not in self._known:
            update = blank_update(self._job, order, client, part)
            self._known[key] = order_sizes(order)(client), update_size(update)
        return self._known[key]


def _length(value: object) -> int:
    """Characters in an envelope, which stands as a text within JSON."""
    return len(json.dumps(json.dumps(value)))
