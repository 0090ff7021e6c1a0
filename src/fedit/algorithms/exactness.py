"""How much of what clients learned is lost in combining LoRA's factors, measured in every round.

The mean of factors is not the factors of a mean: Σ p_k B_k A_k ≠ (Σ p_k B_k)(Σ p_k A_k). Both sides are
looked at through some random columns Ω, for which E ‖M Ω‖² = columns · ‖M‖² (Hutchinson), so that no product
as large as a layer is made, and what is measured can be summed as everything else is.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from fedit.core.lora import SKETCH, layers
from fedit.core.messages import ADAPTER, BASE, Metrics, Order, State, Update, received_by
from fedit.core.seats import Algorithm, Combine
from fedit.core.seeds import stream
from fedit.core.sums import Sum
from fedit.core.tree import Tree, norm, sub

COLUMNS = 16
"""Columns of Ω: over the layers of a model the norm's error is some per cent."""


@dataclass(frozen=True, slots=True)
class Sketched:
    """`inner`, with B_k A_k Ω of every update summed as its factors are."""

    inner: Combine[Sum]

    @property
    def linear(self) -> bool:
        return self.inner.linear

    def start(self, order: Order, spare: Sum | None = None) -> Sum:
        return self.inner.start(order, spare)

    def add(self, total: Sum, update: Update, order: Order) -> Sum:
        own = {**received_by(update.client, order), **update.payload[ADAPTER]}
        payload = {**update.payload, SKETCH: sketch(own, order.seed)}
        return self.inner.add(total, replace(update, payload=payload), order)

    def merge(self, total: Sum, other: Sum) -> Sum:
        return self.inner.merge(total, other)


@dataclass(frozen=True, slots=True)
class Lost:
    """The metric `lost`: ‖ΔW − mean of ΔW_k‖ / ‖mean of ΔW_k − last ΔW‖, ΔW being the new global change.

    `scale` is LoRA's s, for methods that add to the base as well. 0 is exact; with a server's optimizer,
    which does not step to the mean, it says how far from it the step led.
    """

    scale: float

    def __call__(self, old: State, new: State, total: Sum, order: Order) -> Metrics:
        if not total.mass(SKETCH):
            return {}
        mean, before = total.mean(SKETCH), sketch(old.adapter, order.seed)
        after = sketch(new.adapter, order.seed)
        for layer, base in new.public.get(BASE, {}).items():
            added = base.double() - old.public[BASE][layer].double()
            after[layer] = (
                after[layer] + added @ _columns(base.shape[1], order.seed, layer) / self.scale
            )
        learned = norm(sub(mean, before))
        if learned <= 1e-9 * norm(before):  # nothing but rounding
            return {}
        return {"lost": norm(sub(after, mean)) / learned}


def sketch(adapter: Tree, seed: int) -> Tree:
    """B A Ω of each layer in fp64, [out × columns]."""
    return {
        layer: adapter[b].double()
        @ (adapter[a].double() @ _columns(adapter[a].shape[1], seed, layer))
        for layer, (a, b) in layers(adapter).items()
    }


@lru_cache(maxsize=4096)
def _columns(size: int, seed: int, layer: str) -> Tensor:
    rng = torch.Generator().manual_seed(stream(seed, "sketch", layer))
    return torch.randn(size, COLUMNS, generator=rng, dtype=torch.float64)


def measured(algorithm: Algorithm[Sum], scale: float) -> Algorithm[Sum]:
    """The same method, which says in every round what combining has lost."""
    return replace(algorithm, combine=Sketched(algorithm.combine), measure=Lost(scale))
