"""How far an update moves, and how far one may: a bound by itself and by what earlier rounds' were."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from fedit.core.lora import layers
from fedit.core.messages import ADAPTER, Metrics, Order, State, Update, received_by
from fedit.core.tree import Tree, norm

MEDIANS = "gate"
"""Private role of the medians of the norms of the last rounds, oldest first, by the role they are of."""

ROUNDS = 5
"""Rounds that are remembered, so that one odd cohort does not set the bound alone."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most an update's norm may be: `norm`, and `times_median` times the median of earlier norms."""

    norm: float | None = None
    times_median: float | None = None

    def caps(self, state: State, roles: Sequence[str]) -> dict[str, float]:
        """By role the most that the norm of an update may be in the next round; nothing without bounds.

        `norm` bounds the adapter; the median, every role by its own. The first round has none yet.
        """
        if self == NO_BOUNDS:
            return {}
        known, caps = state.private.get(MEDIANS, {}), dict[str, float]()
        for role in (ADAPTER, *roles):
            cap = self.norm if self.norm is not None and role == ADAPTER else math.inf
            usual = median(known[role].tolist()) if role in known else 0.0
            if self.times_median is not None and usual > 0:
                cap = min(cap, self.times_median * usual)
            caps[role] = cap
        return caps

    def remember(
        self, old: State, new: State, accepted: Mapping[str, Metrics], order: Order
    ) -> State:
        """The new state, which keeps for itself the medians of norms: the old one's and this round's."""
        if self.times_median is None or not accepted:
            return new
        known, now = old.private.get(MEDIANS, {}), Tree()
        for role in order.caps:
            found = median(metrics[metric(role)] for metrics in accepted.values())
            earlier = known.get(role, torch.empty(0, dtype=torch.float64))[1 - ROUNDS :]
            now[role] = torch.cat([earlier, torch.tensor([found], dtype=torch.float64)])
        return replace(new, private={**new.private, MEDIANS: now})


NO_BOUNDS = Bounds()
"""An update may be of any size; nothing is measured."""


def metric(role: str) -> str:
    """The metric under which the server tells a role's norm."""
    return f"{role}_norm"


def norms(update: Update, order: Order) -> Metrics:
    """The norms of what an update brings, by the metric that tells them: those of the roles with caps.

    Of the adapter it is the change from what the client received; other roles hold changes as they are.
    """
    received = received_by(update.client, order)
    return {
        metric(role): change_norm(update.payload[role], received, order.trains)
        if role == ADAPTER
        else norm(update.payload[role])
        for role in order.caps
    }


def change_norm(sent: Tree, received: Tree, trains: frozenset[str]) -> float:
    """‖B'A' − B A‖ over LoRA's layers, ‖w' − w‖ over all else, as one Frobenius norm in fp64.

    B'A' − B A is [B', −B] [A'; A], so this takes products of 2r × 2r only; LoRA's scale is left out.
    Unlike the factors' own, this norm is the same for (B Q, Q⁻¹ A). A factor that the client trains and
    keeps has no product here: its fellow counts by itself.
    """
    whole, square, paired = {**received, **sent}, 0.0, set[str]()
    for a, b in layers(whole).values():
        moved, other = {a, b} & sent.keys(), {a, b} - sent.keys()
        if moved and not other & trains and whole[a].ndim == whole[b].ndim == 2:
            near = torch.cat([whole[a], received[a]]).double()
            far = torch.cat([whole[b], -received[b]], dim=1).double()
            square += max(0.0, float(((far.T @ far) * (near @ near.T)).sum()))
            paired |= moved
    for name in sent.keys() - paired:
        square += float((sent[name].double() - received[name].double()).square().sum())
    return math.sqrt(square)
