"""Packed roles in the message of an order: one table of names and shapes for all that have the same."""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from fedit.core.codes import Unfit, code_of
from fedit.core.messages import ADAPTER, Order, Packed, Payload
from fedit.core.strict import Reason, WireError
from fedit.core.tree import Spec, spec

PACKED = "packed"
"""Key of the envelope: the code, and what it is unpacked to."""

_MOST = 1 << 40  # numbers in a tensor


def in_short(order: Order, envelope: Mapping[str, Any]) -> tuple[Payload, dict[str, Any]]:
    """The public payload and the envelope as they travel, the packed roles in place of what they stand for.

    Names of parameters are written once; what trains and what travels are places in the adapter's names.
    """
    if order.packed is None:
        return order.public, dict(envelope)
    tables: dict[tuple[Any, ...], list[str]] = {}
    for role in order.packed.payload:
        form = spec(order.public[role])
        tables.setdefault(tuple((n, shape) for n, (shape, _) in form.items()), []).append(role)
    said = [
        {"roles": roles, "names": [n for n, _ in table], "shapes": [list(s) for _, s in table]}
        for table, roles in tables.items()
    ]
    short = {**envelope, PACKED: {"code": order.packed.code.words(), "like": said}}
    if ADAPTER in order.packed.payload:
        place = {name: number for number, name in enumerate(order.public[ADAPTER])}
        short |= {key: [place[n] for n in envelope[key]] for key in ("trains", "travels")}
    return {**order.public, **order.packed.payload}, short


def in_full(payload: Payload, envelope: dict[str, Any]) -> tuple[Packed | None, Payload]:
    """What came packed and all roles unpacked; the envelope loses what is said of it. Raises WireError."""
    if PACKED not in envelope:
        return None, payload
    try:
        said = envelope.pop(PACKED)
        code = code_of(said["code"])
        forms = {role: form for table in said["like"] for role, form in _forms(table)}
        packed = {role: payload[role] for role in forms}
        plain = {role: code.unpack(packed[role], form) for role, form in forms.items()}
        if ADAPTER in forms:
            names = list(forms[ADAPTER])
            for key in ("trains", "travels"):
                envelope[key] = [names[_whole(place, len(names))] for place in envelope[key]]
    except (Unfit, ValueError, KeyError, TypeError) as error:
        raise WireError(
            Reason.ENVELOPE, f"not a packed order: {type(error).__name__}: {error}"
        ) from None
    return Packed(code, packed), {**payload, **plain}


def _forms(table: Any) -> list[tuple[str, Spec]]:
    names, shapes = table["names"], table["shapes"]
    if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise ValueError("names must be texts, each once")
    form = {name: (_shape(s), torch.float32) for name, s in zip(names, shapes, strict=True)}
    return [(role, form) for role in table["roles"]]


def _shape(sizes: Any) -> tuple[int, ...]:
    shape = tuple(_whole(size, _MOST) for size in sizes)
    if len(shape) > 8 or prod(shape) >= _MOST:
        raise ValueError("a shape is too large")
    return shape


def _whole(value: Any, below: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise ValueError(f"{value!r} is no whole number from 0 to {below - 1}")
    return value
