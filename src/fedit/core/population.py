"""Who takes part: how a cohort is drawn and weighed, and the engines in which clients live."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from fedit.core.messages import Client, Failure, Member, Metrics, Order, Reply

Total = TypeVar("Total")
"""A round's replies under combination."""


class Select(Protocol):
    """Draws a round's cohort from the population; the same generator state gives the same cohort."""

    def __call__(self, population: Sequence[Client], rng: np.random.Generator) -> list[Member]: ...


@dataclass(frozen=True, slots=True)
class Weights:
    """Weight by client id in the order of combination, and the pace: the step taken towards the mean.

    A mean renormalised over the cohort has pace 1; an unbiased one has the sum of its weights, which is 1
    only on average over cohorts.
    """

    by_client: Mapping[str, float]
    pace: float = 1.0


@dataclass(slots=True)
class Share(Generic[Total]):
    """What a group of clients came to: the total of its updates, who replied what, who failed and why."""

    clients: tuple[str, ...]
    total: Total
    metrics: dict[str, Metrics] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


Answer = Reply | Share[Any]
"""What an engine gives: single replies, or the finished share of a whole group."""

Weigh = Callable[[Sequence[Member], Sequence[Client]], Weights]
"""(cohort, population) → weights."""


class Engine(Protocol):
    """Where clients live: in this process, on workers, on a cluster, at other organisations."""

    def clients(self) -> Sequence[Client]:
        """The population, in a fixed order."""
        ...

    def ask(self, order: Order) -> Iterator[Answer]:
        """Answers as they arrive, every member of the cohort accounted for once.

        A reply stands for one client; a share, for a linear rule, for a whole group of the cohort.
        """
        ...

    def take_back(self, order: Order, clients: Sequence[str]) -> None:
        """Undo what the order left with these members of its cohort, whose part does not count.

        What they keep between rounds is as it was before; this lasts once the call has returned.
        """
        ...

    def close(self) -> None:
        """Let go of everything the engine holds, such as processes; a second time does nothing."""
        ...
