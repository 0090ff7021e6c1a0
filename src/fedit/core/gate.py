"""What no update may be: checked on every engine, before anything is combined."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from fedit.core.errors import quoted
from fedit.core.header import difference
from fedit.core.messages import ADAPTER, Failure, Order, Reply, Update, received_by
from fedit.core.norms import metric, norms
from fedit.core.sums import blocks
from fedit.core.tree import Specs, Tree, only, spec

METRICS = 32
"""The most metrics that a client may report."""

LARGEST = 1e15
"""What no metric reaches: more tokens, or bytes, than there are."""

COUNTS = frozenset(
    ("bytes_down", "bytes_kept", "bytes_up", "samples", "seconds", "steps", "supervised", "tokens")
)
"""Metrics that count work and traffic: none is negative."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

Range = tuple[float, float]
"""The least and the most that a metric may be."""


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


def gate(
    reply: Reply,
    order: Order,
    wanted: Specs,
    reads: Mapping[str, Range] | None = None,
) -> Reply:
    """Let an update through or make it a Failure: stale, metrics, roles, names, shape, dtype, norm …

    `reads` are the metrics that the algorithm combines by, which must be there and within their range.
    Where the order has caps, what passes tells its norms. One NaN would otherwise spoil the mean for
    everybody, silently.
    """
    if isinstance(reply, Failure):
        return reply
    reason, detail = _fault(reply, order, wanted, reads or {})
    if reason:
        return Failure(reply.client, reason, detail)
    return _bounded(reply, order) if order.caps else reply


def _bounded(update: Update, order: Order) -> Reply:
    """The update with its norms told, unless one is beyond its cap."""
    found = norms(update, order)
    for role, cap in order.caps.items():
        size = found[metric(role)]
        if not size <= cap or not math.isfinite(size):
            return Failure(
                update.client, "norm", f"{role}: its norm is {size:.6g}, at most {cap:.6g}"
            )
    return replace(update, metrics={**update.metrics, **found})


def _fault(
    update: Update, order: Order, wanted: Specs, reads: Mapping[str, Range]
) -> tuple[str, str]:
    if (update.round, update.attempt) != (order.round, order.attempt):
        answered, asked = (update.round, update.attempt), (order.round, order.attempt)
        return "stale", f"answers (round, attempt) {quoted(answered)}, asked was {asked}"
    if fault := _metrics_fault(update.metrics, reads):
        return "metrics", fault
    if fault := _tensor_fault(update.payload):
        return "tensor", fault
    specs = {role: spec(tree) for role, tree in update.payload.items()}
    if found := difference(specs, wanted):
        return found
    for role, tree in update.payload.items():
        if bad := not_finite(tree):
            return "not finite", f"{role}: {bad} holds NaN or infinity"
    return "", ""


def _metrics_fault(metrics: Any, reads: Mapping[str, Range]) -> str:
    if not isinstance(metrics, dict) or len(metrics) > METRICS:
        return f"expected at most {METRICS} by name"
    for name, value in metrics.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return f"{quoted(name)} is no name of small letters, digits and _, 32 at most"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{name} is {quoted(value)}, expected a finite number"
        if not abs(value) <= LARGEST:  # NaN is not either
            return f"{name} is {quoted(value)}, expected a finite number within ±{LARGEST:g}"
        if value < 0 and name in COUNTS:
            return f"{name} is {value}, expected no less than 0"
    for name, (least, most) in reads.items():
        if name not in metrics:
            return f"{name} is missing"
        if not least <= metrics[name] <= most:
            return f"{name} is {metrics[name]}, expected {least:g} to {most:g}"
    return ""


def _tensor_fault(payload: Any) -> str:
    """What is no payload of plain tensors, as only code in this process can hand over."""
    if not isinstance(payload, dict) or not all(isinstance(t, dict) for t in payload.values()):
        return "expected trees by role"
    for tree in payload.values():
        for name, t in tree.items():
            if not isinstance(t, torch.Tensor):
                return f"{quoted(name)} is a {type(t).__name__}"
            if t.layout != torch.strided or t.is_meta or t.is_quantized or t.requires_grad:
                return f"{quoted(name)} is no plain tensor with numbers of its own"
    return ""
