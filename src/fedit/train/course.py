"""The course of one fit: its batches, its learning rates, and what it came to."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedit.config import Local
from fedit.core.messages import Metrics, Order
from fedit.core.seeds import generator, stream
from fedit.train.batches import shuffled
from fedit.train.encoded import Encoded
from fedit.train.optimizers import lr_at


class Course:
    """One client's way through its rows, the same whether it trains alone or beside others.

    `steps` is the number of its steps and `seed` that of dropout; `path` sums the learning rates taken.
    """

    def __init__(
        self,
        plan: Local,
        rows: Sequence[Encoded],
        order: Order,
        client: str,
        again: str,
        rounds: int,
        odds: NDArray[np.float64] | None = None,
    ):
        names: list[str | int] = ["fit", order.round, order.attempt, client]
        names += [again] if again else []
        per_epoch = math.ceil(len(rows) / plan.batch)
        self.steps = plan.steps or per_epoch * (plan.epochs or 1)
        self.seed = stream(order.seed, *names, "dropout")
        rng = generator(order.seed, *names, "order")
        self.batches = shuffled(rows, plan.batch, rng, odds)
        self._plan, self._round, self._rounds = plan, order.round, rounds
        self._sums, self._terms, self._samples, self.tokens, self.path = {"loss": 0.0}, 0, 0, 0, 0.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        at, stride = self._round + step / self.steps, 1 / self.steps
        return lr_at(self._plan, at, stride, self._rounds)

    def count(
        self, batch: Sequence[Encoded], rate: float, told: Metrics, terms: int, tokens: int
    ) -> None:
        """Add a step's sums over its terms, the loss's one of them, and the tokens it went through."""
        self._sums = {key: self._sums.get(key, 0.0) + value for key, value in told.items()}
        self._terms, self._samples = self._terms + terms, self._samples + len(batch)
        self.tokens, self.path = self.tokens + tokens, self.path + rate

    def metrics(self, unit: str, seconds: float) -> Metrics:
        """What is told of the fit once it is done; `unit` is what its terms are."""
        return {
            **{key: value / self._terms for key, value in self._sums.items()},
            unit: float(self._terms),
            "tokens": float(self.tokens),
            "samples": float(self._samples),
            "steps": float(self.steps),
            "seconds": seconds,
        }
