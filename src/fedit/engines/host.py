"""The clients' side of a round on a worker, whatever the transport that brings orders and takes answers."""

from collections.abc import Sequence
from typing import Any

from fedit.core.messages import Order
from fedit.core.population import Answer
from fedit.core.seats import Algorithm
from fedit.core.shares import combined, cut
from fedit.engines.inprocess import InProcess
from fedit.engines.messages import order_sizes, pack_answer, unpack_own_order


class Host:
    """Answers for groups of a cohort: it holds the model, and every client that it may be asked for."""

    def __init__(self, clients: InProcess, algorithm: Algorithm[Any]):
        self._clients, self._algorithm = clients, algorithm
        self._order: Order | None = None

    def __call__(self, task: tuple[bytes | None, int]) -> list[bytes]:
        """(a new order or None for the last one, the number of a group) → the group's answers, as bytes."""
        order, number = task
        if order is not None:
            self._order = unpack_own_order(order)
        assert self._order is not None
        group = cut(self._order.cohort)[number]
        return [pack_answer(answer) for answer in self.answers(self._order, group)]

    def answers(self, order: Order, group: Sequence[str]) -> list[Answer]:
        """Train a group: one share of it where the rule is linear, else every reply.

        A group of one is a reply too: half the bytes of its fp64 total.
        """
        size = order_sizes(order)
        replies = (self._clients.reply(order, client, size(client)) for client in group)
        if self._algorithm.combine.linear and len(group) > 1:
            found: list[Answer] = [combined(replies, group, order, self._algorithm)]
        else:
            found = list(replies)
        self._clients.homes.flush()
        return found
