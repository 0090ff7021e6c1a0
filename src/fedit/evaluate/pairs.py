"""Held-out pairs: DPO's loss, and how often the chosen answer is ranked before the rejected one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch.nn import functional as F

from fedit.train.dpo import Preference
from fedit.train.encoded import Encoded
from fedit.train.forward import Forward


@dataclass(frozen=True, slots=True)
class Ranking:
    """Sums over so many pairs: DPO's loss in nats, those ranked rightly (a tie is half), their margins."""

    loss: float = 0.0
    right: float = 0.0
    margin: float = 0.0
    pairs: int = 0

    def __add__(self, other: "Ranking") -> "Ranking":
        names = [one.name for one in fields(self)]
        return Ranking(*(getattr(self, name) + getattr(other, name) for name in names))

    def means(self) -> dict[str, float]:
        """Mean loss, accuracy in [0, 1] and mean margin of a pair, NaN without pairs; and their number."""
        count = self.pairs or math.nan
        return {
            "loss": self.loss / count,
            "accuracy": self.right / count,
            "margin": self.margin / count,
            "pairs": self.pairs,
        }


def held_out_ranking(
    objective: Preference,
    forward: Forward,
    rows: Sequence[Encoded],
    groups: Sequence[str],
    batch: int,
) -> dict[str, Ranking]:
    """Ranking by group, in evaluation mode: `groups[i]` is the group of `rows[i]`, which are ready.

    Batches are those of `Preference.ready`, so that a model like the reference ties to the bit.
    """
    found = {group: Ranking() for group in sorted(set(groups))}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    forward.model.eval()
    with torch.inference_mode():
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            margins = objective.margins(forward, [rows[i] for i in chosen])
            for i, loss, margin in zip(
                chosen, F.softplus(-margins).tolist(), margins.tolist(), strict=True
            ):
                right = 0.5 if margin == 0 else float(margin > 0)
                found[groups[i]] += Ranking(loss, right, margin, 1)
    return found
