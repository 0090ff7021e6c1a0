"""All clients in this process, one after another: the reference that every other engine must equal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fedit.core.errors import BrokenInvariant, FeditError
from fedit.core.guards import travelling
from fedit.core.messages import Client, Failure, Home, Order, Reply, Update
from fedit.core.seats import Algorithm
from fedit.core.seeds import generator
from fedit.core.strict import WireError
from fedit.engines.homes import Homes
from fedit.engines.messages import (
    order_sizes,
    pack_order,
    pack_update,
    unpack_order,
    unpack_update,
    update_size,
)

Answer = Callable[[Order, str, Home], tuple[Update, Home]]
"""One client's part of a round: `fedit.core.client.answer` with its trainer and algorithm bound."""

SideBySide = Callable[[Sequence[Callable[[], Reply]]], Sequence[Reply]]
"""Calls functions and gives what they return, in their order."""


def one_after_another(parts: Sequence[Callable[[], Reply]]) -> list[Reply]:
    """The usual way."""
    return [part() for part in parts]


@dataclass(frozen=True)
class InProcess:
    """Simulated clients; each fails to reply with probability `dropout`, drawn from the run's seed.

    As many as `together`, next to each other in the cohort, are asked `side_by_side`.
    """

    answer: Answer
    population: Sequence[Client]
    homes: Homes
    dropout: float = 0.0
    together: int = 1
    side_by_side: SideBySide = one_after_another

    def clients(self) -> Sequence[Client]:
        """The population, in the order of the plan's partition."""
        return self.population

    def ask(self, order: Order) -> Iterator[Reply]:
        """Train the cohort in its own order; a client's error is its Failure, not the run's end."""
        self.homes.rewind(order.round)
        size = order_sizes(order)
        for first in range(0, len(order.cohort), self.together):
            group = order.cohort[first : first + self.together]
            yield from self.side_by_side([partial(self.reply, order, c, size(c)) for c in group])
        self.homes.flush()

    def take_back(self, order: Order, clients: Sequence[str]) -> None:
        """What these clients kept in the order's round is removed from their homes."""
        self.homes.take_back(clients, order.round + 1)

    def close(self) -> None:
        """There is nothing to let go of."""

    def reply(self, order: Order, client: str, size: int) -> Reply:
        """Have one client train, on a worker as here; `size` is that of the order in bytes.

        What the client keeps is on disk for good once the homes are flushed.
        """
        if self.dropout:
            draw = generator(order.seed, "dropout", order.round, order.attempt, client)
            if draw.random() < self.dropout:
                return Failure(client, "dropout", "simulated by federation.dropout")
        try:
            update, home = self.answer(order, client, self.homes.load(client, order.round))
        except BrokenInvariant:
            raise
        except WireError as error:
            return Failure(client, error.reason, error.detail)
        except (FeditError, RuntimeError) as error:
            return Failure(client, "error", f"{type(error).__name__}: {error}")
        self.homes.save(client, order.round + 1, home)
        traffic = {
            "bytes_kept": float(
                sum(t.nbytes for tree in home.payload.values() for t in tree.values())
            ),
            "bytes_down": float(size),
            "bytes_up": float(update_size(update)),
        }
        return replace(update, metrics={**update.metrics, **traffic})


def through_bytes(answer: Answer, algorithm: Algorithm[Any]) -> Answer:
    """The same answer with every message packed and read as a stranger's: nothing else can pass."""

    def answered(order: Order, client: str, home: Home) -> tuple[Update, Home]:
        update, home = answer(unpack_order(pack_order(order, client)), client, home)
        block = pack_update(update)
        return unpack_update(block, travelling(order, client, algorithm), client), home

    return answered
