"""Held-out loss: nats per supervised token, overall and by group."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedit.train.encoded import Encoded
from fedit.train.forward import Forward


@dataclass(slots=True)
class Loss:
    """Summed cross entropy in nats, over how many supervised tokens."""

    total: float = 0.0
    tokens: int = 0

    @property
    def mean(self) -> float:
        """Nats per token; NaN without tokens."""
        return self.total / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the mean; infinity where that overflows."""
        return math.exp(self.mean) if self.mean < 700 else math.inf


def row_losses(forward: Forward, rows: Sequence[Encoded], batch: int) -> list[Loss]:
    """The loss of each row, in evaluation mode; every module's mode is put back.

    Batches hold rows of like length; the sums do not depend on the batch size beyond rounding.
    """
    losses = [Loss() for _ in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    modes = [(module, module.training) for module in forward.model.modules()]
    forward.model.eval()
    with torch.inference_mode():
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            values, places = forward.losses([rows[i] for i in chosen])
            sums = torch.zeros(len(chosen), dtype=torch.float64, device=values.device)
            sums.index_add_(0, places, values.double())
            counts = torch.bincount(places, minlength=len(chosen))
            for i, total, count in zip(chosen, sums.tolist(), counts.tolist(), strict=True):
                losses[i] = Loss(total, count)
    for module, training in modes:
        module.training = training
    return losses


def held_out_loss(
    forward: Forward, rows: Sequence[Encoded], groups: Sequence[str], batch: int
) -> dict[str, Loss]:
    """Loss by group: `groups[i]` is the group of `rows[i]`."""
    losses = {group: Loss() for group in sorted(set(groups))}
    found = row_losses(forward, rows, batch)
    for group, loss in zip(groups, found, strict=True):
        losses[group].total += loss.total
        losses[group].tokens += loss.tokens
    return losses


def overall(losses: dict[str, Loss]) -> Loss:
    """All groups together: every token counts once."""
    return Loss(sum(x.total for x in losses.values()), sum(x.tokens for x in losses.values()))
