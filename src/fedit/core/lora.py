"""LoRA's factors in a tree: which belong together, their products, and how a rank is cut and filled up.

A layer changes by ΔW = s B A with A [r × in] and B [out × r] (arXiv 2106.09685); products are without s.
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fedit.core.tree import Tree

A, B = "lora_A", "lora_B"
"""Part of the names of the factors."""

SKETCH = "sketch"
"""Role in a sum of what measures exactness."""


def layers(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The names of both factors by the layer's own name; what is no LoRA factor is left out.

    >>> layers(["q.lora_A.weight", "q.lora_B.weight", "norm"])
    {'q': ('q.lora_A.weight', 'q.lora_B.weight')}
    """
    known = set(names)
    found = {}
    for name in sorted(known):
        layer, mark, rest = name.partition(f".{A}")
        if mark and (other := f"{layer}.{B}{rest}") in known:
            found[layer] = (name, other)
    return found


def products(tree: Mapping[str, Tensor]) -> Tree:
    """B A of each layer in fp64, [out × in] by the layer's name."""
    return {layer: tree[b].double() @ tree[a].double() for layer, (a, b) in layers(tree).items()}


def product_norm(tree: Mapping[str, Tensor]) -> float:
    """‖B A‖ over all layers (Frobenius), by products of r × r only: ‖BA‖² = ⟨BᵀB, AAᵀ⟩."""
    total = 0.0
    for a, b in layers(tree).values():
        near, far = tree[a].double(), tree[b].double()
        total += float(((far.T @ far) * (near @ near.T)).sum())
    return math.sqrt(max(total, 0.0))


def rank_of(tree: Mapping[str, Tensor]) -> int:
    """The largest rank of a layer; 0 without LoRA factors."""
    return max((tree[a].shape[0] for a, _ in layers(tree).values()), default=0)


def cut(tree: Mapping[str, Tensor], rank: int) -> Tree:
    """The first `rank` rows of every A and columns of every B; all else as it is."""
    return {name: t[_first(name, rank)] for name, t in tree.items()}


def filled(tree: Mapping[str, Tensor], rank: int) -> Tree:
    """Every A and B filled up with zeros to `rank`, which changes no product and no gradient of the rest."""
    full = Tree()
    for name, tensor in tree.items():
        shape = list(tensor.shape)
        if place := _first(name, rank):
            shape[len(place) - 1] = max(rank, shape[len(place) - 1])
        full[name] = tensor.new_zeros(shape)
        full[name][tuple(slice(n) for n in tensor.shape)] = tensor
    return full


def _first(name: str, rank: int) -> tuple[slice, ...]:
    if f".{A}" in name:
        return (slice(rank),)
    if f".{B}" in name:
        return (slice(None), slice(rank))
    return ()


def factored(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A and B of that rank whose product is nearest: A = V_rᵀ with orthonormal rows, B = U_r Σ_r.

    The squared error is the sum of the squares of the singular values left out (Eckart and Young); where
    the layer is smaller than the rank, zeros fill up.
    """
    u, s, v = torch.linalg.svd(product.double(), full_matrices=False)
    r = min(rank, len(s))
    a, b = product.new_zeros(rank, product.shape[1]), product.new_zeros(product.shape[0], rank)
    a[:r], b[:, :r] = v[:r], u[:, :r] * s[:r]
    return a, b
