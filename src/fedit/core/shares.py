"""A cohort in groups: each group's replies are added up by themselves, and then the groups' totals.

Where a group is added up, on a worker or by the server, and when it arrives, changes no bit.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from fedit.core.errors import BrokenInvariant
from fedit.core.gate import expected, gate
from fedit.core.guards import opened
from fedit.core.messages import Failure, Order, Reply, Update
from fedit.core.population import Answer, Share
from fedit.core.seats import Algorithm, T

GROUPS = 32
"""The most groups a cohort is cut into, and so the most totals that can ever wait for their turn."""


def cut(cohort: Sequence[str]) -> list[tuple[str, ...]]:
    """The cohort in its order as contiguous groups of nearly equal size: one by one, 32 at the most.

    >>> [len(group) for group in cut(["c"] * 3)], {len(group) for group in cut(["c"] * 100)}
    ([1, 1, 1], {3, 4})
    """
    count = min(len(cohort), GROUPS)
    ends = [len(cohort) * i // count for i in range(count + 1)] if count else []
    return [tuple(cohort[a:b]) for a, b in pairwise(ends)]


def combined(
    replies: Iterable[Reply],
    group: Sequence[str],
    order: Order,
    algorithm: Algorithm[T],
    spare: T | None = None,
) -> Share[T]:
    """Gate a group's replies and add up what passes, one after another, in the memory of `spare`."""
    roles = algorithm.local.roles
    usual = expected(order, roles)
    share = Share(tuple(group), algorithm.combine.start(order, spare))
    for reply in replies:  # streaming: one update at a time
        own = reply.client in order.personal
        wanted = expected(order, roles, reply.client) if own else usual
        reply, wanted = opened(reply, order, algorithm.guards, wanted)
        reply = gate(reply, order, wanted, algorithm.reads)
        if isinstance(reply, Failure):
            share.failures.append(reply)
            continue
        share.total = algorithm.combine.add(share.total, reply, order)
        share.metrics[reply.client] = reply.metrics
    return share


def shares(answers: Iterable[Answer], order: Order, algorithm: Algorithm[T]) -> Iterator[Share[T]]:
    """One share for each group, in the cohort's order, and one more for failures from outside.

    A share's total may be overwritten as soon as the next one is asked for. A reply from outside the
    cohort or a second one from the same client becomes a Failure ("stranger", "duplicate"); a member that
    never replies becomes one as well ("silent").
    """
    groups, spare = cut(order.cohort), None
    arrived = _Arrived(answers, groups)
    for group in groups:
        if share := arrived.share(group):
            yield share
        else:
            share = combined(map(arrived.reply, group), group, order, algorithm, spare)
            yield share
            spare = share.total
    yield Share((), algorithm.combine.start(order), {}, arrived.strays())


def told(answer: Answer, order: Order) -> list[Reply]:
    """The replies an answer stands for; those in a share without their payloads, which are added up."""
    if not isinstance(answer, Share):
        return [answer]
    updates = [
        Update(client, order.round, order.attempt, {}, metrics)
        for client, metrics in answer.metrics.items()
    ]
    return [*updates, *answer.failures]


class _Arrived:
    """Answers in the order in which they are asked for; those that come before their turn wait."""

    def __init__(self, answers: Iterable[Answer], groups: Sequence[tuple[str, ...]]):
        self._answers, self._group_of = iter(answers), {c: g for g in groups for c in g}
        self._early, self._heard, self._strays = dict[str, Answer](), set[str](), list[Failure]()

    def share(self, group: tuple[str, ...]) -> Share[Any] | None:
        """The group's share, if that is what comes of it, and not single replies."""
        self._wait_for(group[0])
        found = self._early.get(group[0])
        if not isinstance(found, Share):
            return None
        del self._early[group[0]]
        return found

    def reply(self, client: str) -> Reply:
        """The client's reply."""
        self._wait_for(client)
        found = self._early.pop(client, None) or Failure(client, "silent", "no reply")
        assert not isinstance(found, Share)
        return found

    def strays(self) -> list[Failure]:
        """Failures of those who were not asked, or not again, once everything has arrived."""
        for answer in self._answers:
            self._sort(answer)
        return self._strays

    def _wait_for(self, client: str) -> None:
        while client not in self._early and (answer := next(self._answers, None)) is not None:
            self._sort(answer)

    def _sort(self, answer: Answer) -> None:
        if isinstance(answer, Share):
            first = answer.clients[0]
            if self._group_of.get(first) != answer.clients or self._heard & {*answer.clients}:
                raise BrokenInvariant(
                    f"a share of {answer.clients} is none of a group of this round"
                )
            self._heard.update(answer.clients)
            self._early[first] = answer
        elif answer.client not in self._group_of:
            self._strays.append(Failure(answer.client, "stranger", "not in this round's cohort"))
        elif answer.client in self._heard:
            self._strays.append(Failure(answer.client, "duplicate", "only the first reply counts"))
        else:
            self._heard.add(answer.client)
            self._early[answer.client] = answer
