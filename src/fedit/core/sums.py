"""The weighted sum of updates in fp64: what a linear rule makes of a round's replies."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedit.core.messages import ADAPTER, Payload
from fedit.core.tree import Tree


@dataclass(slots=True)
class Sum:
    """Σ a_k w_k and Σ a_k by role, and sums of plain numbers by name.

    Bits depend on the order of addition alone: every product and every sum is rounded by itself, on any
    number of threads. A role without mass is empty, whatever its memory holds. A role's numbers lie in one
    vector, in the order of the names, so that an adapter of many small tensors is added in a few steps.
    All but the counts is meant times e^level, so that weights may be larger than a number can be.
    """

    masses: dict[str, float] = field(default_factory=dict)
    level: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, Tensor] = field(default_factory=dict)
    shapes: dict[str, dict[str, torch.Size]] = field(default_factory=dict)

    def add(self, payload: Payload, weight: float) -> None:
        """Add one update's trees, which stay as they are: weight > 0, the same names and shapes each time."""
        product = torch.empty(_block(), dtype=torch.float64)
        for role, tree in payload.items():
            shapes = {name: tree[name].shape for name in sorted(tree)}
            if self.shapes.get(role) != shapes:
                size = sum(shape.numel() for shape in shapes.values())
                self.shapes[role] = shapes
                self.numbers[role] = torch.empty(size, dtype=torch.float64)
            start = 0
            for values in blocks(tree[name] for name in shapes):
                into = self.numbers[role][start : start + len(values)]
                if role in self.masses:
                    into.add_(product[: len(values)].copy_(values).mul_(weight))
                else:
                    into.copy_(values).mul_(weight)
                start += len(values)
            self.masses[role] = self.masses.get(role, 0.0) + weight

    def count(self, name: str, number: float) -> None:
        """Add a number to those of that name."""
        self.counts[name] = self.counts.get(name, 0.0) + number

    def merge(self, other: "Sum") -> None:
        """Add another sum over the same names, which may be left at another level."""
        if other.masses:
            self.rise(other.level)
            other.rise(self.level)
        for role, mass in other.masses.items():
            if role in self.masses:
                self.numbers[role].add_(other.numbers[role])
            else:
                self.numbers[role] = other.numbers[role].clone()
                self.shapes[role] = other.shapes[role]
            self.masses[role] = self.masses.get(role, 0.0) + mass
        for name, number in other.counts.items():
            self.count(name, number)

    def rise(self, level: float) -> None:
        """Come to a higher level, meaning the same; an empty sum comes to any."""
        if not self.masses:
            self.level = level
        elif level > self.level:
            factor = math.exp(self.level - level)
            for role in self.masses:
                self.numbers[role].mul_(factor)
                self.masses[role] *= factor
            self.level = level

    def mass(self, role: str = ADAPTER) -> float:
        """Σ a_k of a role; 0 where nothing was added."""
        return self.masses.get(role, 0.0)

    def sums(self, role: str = ADAPTER) -> Tree:
        """Σ a_k w_k by name: views, not copies."""
        shapes = self.shapes[role] if role in self.masses else {}
        sizes = [shape.numel() for shape in shapes.values()]
        parts = self.numbers[role].split(sizes) if sizes else []
        return {name: t.view(shapes[name]) for name, t in zip(shapes, parts, strict=True)}

    def mean(self, role: str = ADAPTER) -> Tree:
        """Σ a_k w_k / Σ a_k over the clients that replied, in fp64."""
        return {name: t / self.masses[role] for name, t in self.sums(role).items()}


def blocks(tensors: Iterable[Tensor], size: int = 0) -> Iterator[Tensor]:
    """All numbers in order, in vectors of at most `size`: large tensors cut, small ones put together."""
    size = size or _block()
    small, held = list[Tensor](), 0
    for tensor in tensors:
        if small and held + tensor.numel() > size:
            yield _joined(small)
            small, held = [], 0
        if tensor.numel() > size:
            yield from tensor.reshape(-1).split(size)
        else:
            small.append(tensor.reshape(-1))
            held += tensor.numel()
    if small:
        yield _joined(small)


def _block() -> int:
    """Numbers to take at a time: few enough for the cache, from product to sum.

    Beyond 2¹⁵ torch uses all its threads, which in steps so short mostly wait for each other.
    """
    return 1 << (17 if torch.get_num_threads() == 1 else 15)


def _joined(vectors: list[Tensor]) -> Tensor:
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors)
