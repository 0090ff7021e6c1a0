"""A tree is a mapping from parameter names to tensors: the one form adapters have outside a model."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Tree = dict[str, Tensor]
Spec = dict[str, tuple[tuple[int, ...], torch.dtype]]
Specs = dict[str, Spec]
"""By role."""


def spec(tree: Mapping[str, Tensor]) -> Spec:
    """Names, shapes and dtypes of a tree: what a payload must look like to be accepted.

    >>> spec({"b": torch.zeros(2, 3)})
    {'b': ((2, 3), torch.float32)}
    """
    return {name: (tuple(t.shape), t.dtype) for name, t in tree.items()}


def map_trees(
    f: Callable[..., Tensor], first: Mapping[str, Tensor], *rest: Mapping[str, Tensor]
) -> Tree:
    """Apply `f` to the tensors that bear the same name; every tree must hold the names of the first.

    >>> map_trees(torch.add, {"a": torch.ones(1)}, {"a": torch.ones(1)})
    {'a': tensor([2.])}
    """
    return {name: f(t, *(tree[name] for tree in rest)) for name, t in first.items()}


def sub(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tree:
    """left − right, name by name."""
    return map_trees(torch.sub, left, right)


def scale(tree: Mapping[str, Tensor], factor: float) -> Tree:
    """factor · tree."""
    return {name: t * factor for name, t in tree.items()}


def double(tree: Mapping[str, Tensor]) -> Tree:
    """The tree in fp64, in memory of its own: the precision in which a server adds."""
    return {name: t.to(torch.float64, copy=True) for name, t in tree.items()}


def cast_like(tree: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Tree:
    """The tree in the dtypes of `like`: back from fp64 to what travels."""
    return {name: t.to(like[name].dtype) for name, t in tree.items()}


def only(tree: Mapping[str, Tensor], names: Iterable[str]) -> Tree:
    """The part of the tree that bears these names, in the tree's own order."""
    wanted = set(names)
    return {name: t for name, t in tree.items() if name in wanted}


def norm(tree: Mapping[str, Tensor]) -> float:
    """Euclidean norm over all tensors, in fp64, whatever the order of the names.

    >>> norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    5.0
    """
    return math.sqrt(math.fsum(float(t.double().square().sum()) for t in tree.values()))


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Whether two trees hold the same names and the same bits."""
    return spec(left) == spec(right) and all(
        torch.equal(t, right[name]) for name, t in left.items()
    )
