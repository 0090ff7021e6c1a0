"""Short forms of a tree's numbers: bf16, whole numbers with a scale for each group, the largest alone.

A packed tree is a few vectors, its names and shapes are known to both sides. Names go in sorted order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from fedit.core.amounts import part_of
from fedit.core.bits import apart, joined, largest, rounded_up, short
from fedit.core.errors import FeditError
from fedit.core.header import difference
from fedit.core.tree import Spec, Tree, spec

Bits = Literal[2, 3, 4, 5, 6, 8]
BITS: dict[str, Bits] = {"int2": 2, "int3": 3, "int4": 4, "int5": 5, "int6": 6, "int8": 8}
"""Bits of a number, by the name of its code."""

_BLOCK = 1 << 16  # numbers whose places two bytes can tell apart


class Unfit(FeditError):
    """An update that is not what it should be: `reason` is a short fixed word."""

    def __init__(self, reason: str, detail: str):
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class Code(Protocol):
    """How numbers travel. What `pack` makes of a tree has the spec that `packed` makes of the tree's."""

    def packed(self, plain: Spec) -> Spec: ...

    def pack(self, tree: Tree, rng: np.random.Generator | None = None) -> Tree:
        """With a generator whole numbers are rounded up or down at random, so that the mean is right."""
        ...

    def unpack(self, packed: Tree, plain: Spec) -> Tree:
        """The tree that was packed, to within the code's error.

        Raises `Unfit` whatever is wrong with `packed`, which may come from a stranger.
        """
        ...

    def words(self) -> dict[str, Any]:
        """What `code_of` makes the same code of."""
        ...


@dataclass(frozen=True, slots=True)
class Bf16:
    """The nearest bf16: half the bytes, an error of at most 1/256 of each number."""

    def packed(self, plain: Spec) -> Spec:
        return {"values": ((_numbers(plain),), torch.bfloat16)}

    def pack(self, tree: Tree, rng: np.random.Generator | None = None) -> Tree:
        return {"values": short(_flat(tree))}

    def unpack(self, packed: Tree, plain: Spec) -> Tree:
        _check(packed, self.packed(plain))
        return _shaped(packed["values"], plain)

    def words(self) -> dict[str, Any]:
        return {"kind": "bf16"}


@dataclass(frozen=True, slots=True)
class Whole:
    """q · s with whole q in ±(2^(bits−1) − 1) and a scale s ≥ 0 in bf16 for each group of a tensor's numbers.

    s is the group's largest number over the largest q, rounded up, so no number is cut. The error is at most
    s/2 where q is the nearest, below s where it is drawn between its neighbours, and then 0 in the mean
    (QSGD, arXiv 1610.02132). 0 stays 0. Numbers stand bit by bit, the first in the lowest bits of the first
    byte: of 4 bits, two share a byte.
    """

    bits: Bits
    group: int

    @property
    def top(self) -> int:
        """The largest q: 1, 3, 7, 15 … 127."""
        return (1 << (self.bits - 1)) - 1

    def packed(self, plain: Spec) -> Spec:
        numbers = _numbers(plain)
        codes = (-(-numbers * self.bits // 8),), torch.uint8
        return {"codes": codes, "scales": ((sum(self._groups(plain)),), torch.bfloat16)}

    def pack(self, tree: Tree, rng: np.random.Generator | None = None) -> Tree:
        codes, scales = [torch.zeros(0, dtype=torch.int8)], [torch.zeros(0, dtype=torch.bfloat16)]
        for name in sorted(tree):
            rows = self._rows(tree[name].detach().reshape(-1).float())
            scale = rounded_up(rows.abs().amax(1).double() / self.top)
            ratio = torch.where(scale[:, None] > 0, rows / scale.float()[:, None], 0.0)
            if rng is None:
                whole = ratio.round()
            else:
                draw = rng.random(ratio.shape, dtype=np.float32)
                whole = (ratio + torch.from_numpy(draw)).floor()
            whole = whole.clamp(-self.top, self.top).to(torch.int8)
            codes.append(whole.reshape(-1)[: tree[name].numel()])
            scales.append(scale)
        return {"codes": joined(torch.cat(codes), self.bits), "scales": torch.cat(scales)}

    def unpack(self, packed: Tree, plain: Spec) -> Tree:
        _check(packed, self.packed(plain))
        numbers, scales = _numbers(plain), packed["scales"].float()
        if not bool((torch.isfinite(scales) & (scales >= 0)).all()):
            raise Unfit("packed", "a scale is negative, infinite or no number")
        try:
            codes = apart(packed["codes"], self.bits, numbers)
        except ValueError as error:
            raise Unfit("packed", str(error)) from None
        if bool((codes < -self.top).any()):
            raise Unfit("packed", f"a number is below {-self.top}")
        tree, start, first = Tree(), 0, 0
        for (name, (shape, dtype)), groups in zip(
            sorted(plain.items()), self._groups(plain), strict=True
        ):
            size = prod(shape)
            rows = self._rows(codes[start : start + size].float())
            values = (rows * scales[first : first + groups, None]).reshape(-1)[:size]
            tree[name] = values.view(shape).to(dtype)
            start, first = start + size, first + groups
        return {name: tree[name] for name in plain}

    def words(self) -> dict[str, Any]:
        return {"kind": f"int{self.bits}", "group": self.group}

    def _groups(self, plain: Spec) -> list[int]:
        return [-(-prod(shape) // self.group) for _, (shape, _) in sorted(plain.items())]

    def _rows(self, flat: Tensor) -> Tensor:
        """A row for each group, the last filled up with zeros."""
        missing = -len(flat) % self.group
        return torch.nn.functional.pad(flat, (0, missing)).view(-1, self.group)


@dataclass(frozen=True, slots=True)
class Largest:
    """The `share` of each tensor's numbers with the largest magnitude, at least one, in bf16; the rest is 0.

    Two bytes more tell a number's place among 65,536; so the bytes are that share of fp32's.
    """

    share: float

    def packed(self, plain: Spec) -> Spec:
        kept = sum(self._kept(prod(shape)) for shape, _ in plain.values())
        blocks = -(-_numbers(plain) // _BLOCK)
        return {
            "counts": ((blocks,), torch.int32),
            "places": ((kept,), torch.uint16),
            "values": ((kept,), torch.bfloat16),
        }

    def pack(self, tree: Tree, rng: np.random.Generator | None = None) -> Tree:
        flat, found, start = _flat(tree), [np.zeros(0, dtype=np.int64)], 0
        for name in sorted(tree):
            size = tree[name].numel()
            own = flat[start : start + size].abs().numpy()
            found.append(start + largest(own, self._kept(size)))
            start += size
        places = np.concatenate(found)
        blocks = -(-len(flat) // _BLOCK)
        counts = np.bincount(places // _BLOCK, minlength=blocks).astype(np.int32)
        return {
            "counts": torch.from_numpy(counts),
            "places": torch.from_numpy((places % _BLOCK).astype(np.uint16)),
            "values": short(flat[torch.from_numpy(places)]),
        }

    def unpack(self, packed: Tree, plain: Spec) -> Tree:
        _check(packed, self.packed(plain))
        counts, within = packed["counts"].numpy().astype(np.int64), packed["places"].numpy()
        if (counts < 0).any() or counts.sum() != len(within):
            raise Unfit("packed", f"counts do not come to the {len(within)} places")
        places = np.repeat(np.arange(len(counts)) * _BLOCK, counts) + within.astype(np.int64)
        if (np.diff(places) <= 0).any():
            raise Unfit("packed", "places do not rise: one stands twice, or they are out of order")
        numbers = _numbers(plain)
        if len(places) and places[-1] >= numbers:
            raise Unfit("packed", f"place {places[-1]} is beyond the {numbers} numbers there are")
        flat = torch.zeros(numbers)
        flat[torch.from_numpy(places)] = packed["values"].float()
        return _shaped(flat, plain)

    def words(self) -> dict[str, Any]:
        return {"kind": "topk", "share": self.share}

    def _kept(self, size: int) -> int:
        return min(size, part_of(float(self.share), size)) if size else 0


def code_of(words: Any) -> Code:
    """The code that says these words of itself. Raises ValueError."""
    match words:
        case {"kind": "bf16", **rest} if not rest:
            return Bf16()
        case {"kind": str(kind), "group": int(group), **rest} if (
            not rest and kind in BITS and not isinstance(group, bool) and 0 < group <= _BLOCK
        ):
            return Whole(BITS[kind], group)
        case {"kind": "topk", "share": float(share), **rest} if not rest and 0 < share <= 1:
            return Largest(share)
    raise ValueError("no code of that name and form")


def _numbers(plain: Spec) -> int:
    return sum(prod(shape) for shape, _ in plain.values())


def _flat(tree: Tree) -> Tensor:
    parts = [tree[name].detach().reshape(-1).float() for name in sorted(tree)]
    return torch.cat(parts) if parts else torch.zeros(0)


def _shaped(flat: Tensor, plain: Spec) -> Tree:
    names, sizes = sorted(plain), [prod(plain[name][0]) for name in sorted(plain)]
    parts: Iterable[Tensor] = flat.split(sizes) if sizes else []
    found = dict(zip(names, parts, strict=True))
    # each in memory of its own: a checkpoint or a message copies what shares memory
    return {n: found[n].to(dtype, copy=True).view(shape) for n, (shape, dtype) in plain.items()}


def _check(packed: Tree, wanted: Spec) -> None:
    if found := difference({"packed": spec(packed)}, {"packed": wanted}):
        reason, detail = found
        raise Unfit(reason.value, detail)
