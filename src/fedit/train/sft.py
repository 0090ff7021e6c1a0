"""Supervised fine-tuning: the model learns to write the answers it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedit.core.messages import Metrics
from fedit.train.adapters import Adapted
from fedit.train.encoded import Encoded
from fedit.train.forward import Forward


@dataclass(frozen=True, slots=True)
class Imitation:
    """An Objective: cross entropy in nats, averaged over supervised tokens."""

    unit: str = "supervised"
    tells: tuple[str, ...] = ()

    def ready(
        self, adapted: Adapted, forward: Forward, rows: Sequence[Encoded], batch: int
    ) -> Sequence[Encoded]:
        """The rows as they are."""
        return rows

    def terms(self, rows: Sequence[Encoded]) -> int:
        """Tokens that are learned; the first of a row never is."""
        return sum(int(row.learn[1:].sum()) for row in rows)

    def __call__(self, forward: Forward, rows: Sequence[Encoded]) -> tuple[Tensor, Metrics]:
        """The loss of each supervised token; there is nothing more to tell."""
        losses, _ = forward.losses(rows)
        return losses, {}
