"""What no update may be: checked on every engine, before anything is combined."""

import math

import torch

from fedit.core.messages import ADAPTER, Failure, Order, Reply, Update, received_by
from fedit.core.sums import blocks
from fedit.core.tree import Spec, Specs, Tree, misfit, only, spec


def not_finite(tree: Tree) -> str | None:
    """The first name that holds NaN or infinity, looked for in one pass over all numbers.

    Such a number never leaves a sum again; only where a sum is not finite, which finite numbers can bring
    about by overflow, every number is looked at.
    """
    if all(math.isfinite(values.sum().item()) for values in blocks(tree.values())):
        return None
    return next((name for name, t in tree.items() if not bool(torch.isfinite(t).all())), None)


def expected(order: Order, roles: tuple[str, ...], client: str = "") -> Specs:
    """Names, shapes and dtypes, by role, of this client's update; unless one is named, of most clients'."""
    travels = spec(only(received_by(client, order), order.travels))
    return dict.fromkeys((ADAPTER, *roles), travels)


def gate(reply: Reply, order: Order, wanted: Specs) -> Reply:
    """Let an update through or make it a Failure: stale, roles, metrics, names, shape, dtype, not finite.

    One NaN would otherwise spoil the mean for everybody, silently.
    """
    if isinstance(reply, Failure):
        return reply
    reason, detail = _fault(reply, order, wanted)
    return Failure(reply.client, reason, detail) if reason else reply


def _fault(update: Update, order: Order, wanted: Specs) -> tuple[str, str]:
    if (update.round, update.attempt) != (order.round, order.attempt):
        answered, asked = (update.round, update.attempt), (order.round, order.attempt)
        return "stale", f"answers (round, attempt) {answered}, asked was {asked}"
    if set(update.payload) != set(wanted):
        return "roles", f"sent {sorted(update.payload)}, expected {sorted(wanted)}"
    if strange := [key for key, value in update.metrics.items() if not math.isfinite(value)]:
        return "metrics", f"{strange[0]} is {update.metrics[strange[0]]}, expected a finite number"
    for role, tree in update.payload.items():
        reason, detail = _tree_fault(tree, wanted[role])
        if reason:
            return reason, f"{role}: {detail}"
    return "", ""


def _tree_fault(tree: Tree, wanted: Spec) -> tuple[str, str]:
    reason, detail = misfit(tree, wanted)
    if not reason and (bad := not_finite(tree)):
        return "not finite", f"{bad} holds NaN or infinity"
    return reason, detail
