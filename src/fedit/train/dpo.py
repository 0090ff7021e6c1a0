"""Preference tuning: direct preference optimisation (DPO, Rafailov et al., arXiv 2305.18290)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedit.core.messages import Metrics
from fedit.train.adapters import Adapted
from fedit.train.encoded import Encoded, apart
from fedit.train.forward import Forward


@dataclass(frozen=True, slots=True)
class Preference:
    """An Objective: −log σ(margin), averaged over pairs (equation 7).

    A pair's margin is β [(log π(y_w) − log π(y_l)) − (log π_ref(y_w) − log π_ref(y_l))] with β ≥ 0; the
    reference is the base as it was loaded, without the adapter.
    """

    beta: float
    unit: str = "pairs"
    tells: tuple[str, ...] = ("accuracy", "margin")

    def ready(
        self, adapted: Adapted, forward: Forward, rows: Sequence[Encoded], batch: int
    ) -> Sequence[Encoded]:
        """The pairs with the reference's lead, computed once, without dropout, in batches of like length.

        The same rows and batch give the same bits; the base is left as it was loaded. Raises AdapterError.
        """
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        leads = np.full(len(rows), np.nan)
        adapted.shift({})
        adapted.model.eval()
        with adapted.switched_off(), torch.inference_mode():
            for first in range(0, len(order), batch):
                chosen = order[first : first + batch]
                leads[chosen] = leads_of(forward, [rows[i] for i in chosen]).cpu().numpy()
        return Referred(rows, leads)

    def terms(self, rows: Sequence[Encoded]) -> int:
        """Every pair counts once."""
        return len(rows)

    def __call__(self, forward: Forward, rows: Sequence[Encoded]) -> tuple[Tensor, Metrics]:
        """The loss of each pair; how many are ranked rightly (a tie is half), and the sum of the margins."""
        margins = self.margins(forward, rows)
        right = (margins > 0).double() + 0.5 * (margins == 0)
        told = {"accuracy": float(right.sum()), "margin": float(margins.detach().sum())}
        return F.softplus(-margins), told

    def margins(self, forward: Forward, rows: Sequence[Encoded]) -> Tensor:
        """The margin of each pair that `ready` has given, fp64: > 0 where it is ranked rightly."""
        leads = leads_of(forward, rows)
        return self.beta * (leads - leads.new_tensor([row.lead for row in rows]))


def leads_of(forward: Forward, rows: Sequence[Encoded]) -> Tensor:
    """log π(y_w) − log π(y_l) of each pair in nats, fp64: how much likelier the chosen answer is."""
    both = apart(rows)
    nats, _ = forward.losses(both)
    counts = [int(row.learn[1:].sum()) for row in both]
    sums = torch.stack([own.sum() for own in nats.double().split(counts)])
    chosen, rejected = sums.view(-1, 2).unbind(1)
    return rejected - chosen


class Referred(Sequence[Encoded]):
    """Pairs with what the reference finds of them; like the pairs themselves, made when asked for."""

    __slots__ = ("_leads", "_rows")

    def __init__(self, rows: Sequence[Encoded], leads: NDArray[np.float64]) -> None:
        self._rows, self._leads = rows, leads

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> "Referred": ...
    def __getitem__(self, index: int | slice) -> "Encoded | Referred":
        if isinstance(index, slice):
            return Referred(self._rows[index], self._leads[index])
        return replace(self._rows[index], lead=float(self._leads[index]))
