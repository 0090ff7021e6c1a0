"""How far an update moves, and how far one may: a bound by itself and by what earlier rounds' were."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from fedit.core.lora import layers
from fedit.core.messages import ADAPTER, Metrics, Order, State, Update, received_by
from fedit.core.tree import Tree, norm, sub

FACTORS = "factors"
"""Stands among the roles for LoRA's A and B as the numbers that they are."""

MEDIANS = "gate"
"""Private role of the medians of the norms of the last rounds, oldest first, by the role they are of."""

ROUNDS = 5
"""Rounds that are remembered, so that one odd cohort does not set the bound alone."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most an update's norm may be, and `times_median` how many times the median of earlier ones.

    `norm` is for the change of the adapter, of LoRA's layers that of their products; `factors` for the
    change of A and B themselves, which a mean of factors needs as well: with A a million times larger and
    B as much smaller the product stays, but not the product of the means.
    """

    norm: float | None = None
    times_median: float | None = None
    factors: float | None = None

    def caps(self, state: State, roles: Sequence[str]) -> dict[str, float]:
        """By role the most that the norm of an update may be in the next round; nothing without bounds.

        The median bounds every role by its own; the first round has none yet.
        """
        if self == NO_BOUNDS:
            return {}
        own = {ADAPTER: self.norm, **({FACTORS: self.factors} if layers(state.adapter) else {})}
        known, caps = state.private.get(MEDIANS, {}), dict[str, float]()
        for role in (*own, *roles):
            least = own.get(role)
            cap = math.inf if least is None else least
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

    Of the adapter it is the change from what the client received; further roles count as they are.
    """
    sent, received = update.payload[ADAPTER], received_by(update.client, order)
    found = Metrics()
    for role in order.caps:
        if role == ADAPTER:
            found[metric(role)] = change_norm(sent, received, order.trains)
        elif role == FACTORS:
            found[metric(role)] = norm(sub(sent, received))
        else:
            found[metric(role)] = norm(update.payload[role])
    return found


def change_norm(sent: Tree, received: Tree, trains: frozenset[str]) -> float:
    """‖B'A' − B A‖ over LoRA's layers, ‖w' − w‖ over all else, as one Frobenius norm in fp64.

    B'A' − B A is F N with F = [B', −B] and N = [A'; A], and ‖F N‖ = ‖F Rᵀ‖ where Nᵀ = Q R: matrices of
    width 2r only, and unlike tr((FᵀF)(N Nᵀ)) without squares that cancel, behind which a large change
    could hide. LoRA's scale is left out. A factor that the client trains and keeps has no product here:
    its fellow counts by itself.
    """
    whole, parts, paired = {**received, **sent}, list[float](), set[str]()
    for a, b in layers(whole).values():
        moved, other = {a, b} & sent.keys(), {a, b} - sent.keys()
        if moved and not other & trains and whole[a].ndim == whole[b].ndim == 2:
            near = torch.cat([whole[a], received[a]]).double()
            far = torch.cat([whole[b], -received[b]], dim=1).double()
            r = torch.linalg.qr(near.T, mode="r").R
            parts.append(float(torch.linalg.vector_norm(far @ r.T)))
            paired |= moved
    parts += [
        float(torch.linalg.vector_norm(sent[name].double() - received[name].double()))
        for name in sorted(sent.keys() - paired)
    ]
    return math.hypot(*parts)
