"""The weighted sum of updates in fp64: what a linear rule makes of a round's replies."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedit.core.messages import ADAPTER, Payload
from fedit.core.tree import Tree


@dataclass(slots=True)
class Sum:
    """Σ a_k w_k by role, Σ a_k, and how far the server shall move towards the mean.

    Bits depend on the order of addition alone: every product and every sum is rounded by itself, on any
    number of threads. Without mass it is empty, whatever its memory holds. A role's numbers lie in one
    vector, in the order of the names, so that an adapter of many small tensors is added in a few steps.
    """

    pace: float
    mass: float = 0.0
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
                if self.mass:
                    into.add_(product[: len(values)].copy_(values).mul_(weight))
                else:
                    into.copy_(values).mul_(weight)
                start += len(values)
        self.mass += weight

    def merge(self, other: "Sum") -> None:
        """Add another sum over the same names, which stays as it is."""
        if not other.mass:
            return
        if self.mass:
            for role, numbers in other.numbers.items():
                self.numbers[role].add_(numbers)
        else:
            self.numbers = {role: numbers.clone() for role, numbers in other.numbers.items()}
            self.shapes = dict(other.shapes)
        self.mass += other.mass

    def sums(self, role: str = ADAPTER) -> Tree:
        """Σ a_k w_k by name: views, not copies."""
        shapes = self.shapes.get(role, {}) if self.mass else {}
        sizes = [shape.numel() for shape in shapes.values()]
        parts = self.numbers[role].split(sizes) if sizes else []
        return {name: t.view(shapes[name]) for name, t in zip(shapes, parts, strict=True)}

    def mean(self, role: str = ADAPTER) -> Tree:
        """Σ a_k w_k / Σ a_k over the clients that replied, in fp64."""
        return {name: t / self.mass for name, t in self.sums(role).items()}


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
