"""FLoRA: stacked factors are merged into the base (Wang et al., arXiv 2409.05976, section 3.2)."""

import math
from dataclasses import dataclass, replace

import torch

from fedit.algorithms.fedavg import Mean, fedavg
from fedit.algorithms.parts.products import PRODUCT, Products, empty_base
from fedit.core.lora import layers
from fedit.core.messages import ADAPTER, BASE, Order, State
from fedit.core.seats import Algorithm
from fedit.core.seeds import stream
from fedit.core.sums import Sum
from fedit.core.tree import Tree


@dataclass(frozen=True, slots=True)
class Stacked:
    """W ← W + s Σ p_k B_k A_k, which is what the stacked factors multiply to, and every adapter begins anew.

    A is drawn as LoRA draws it at the start, uniform in ±1/√in, and B is 0. What clients receive is the
    sum of the products and not the stacks, so that one who missed rounds has nothing to catch up on.
    """

    scale: float

    def init(self, adapter: Tree) -> State:
        return State(0, {ADAPTER: adapter, BASE: empty_base(adapter)})

    def step(self, state: State, total: Sum, order: Order) -> State:
        base = dict(state.public[BASE])
        for layer, mean in total.mean(PRODUCT).items():
            base[layer] = (base[layer].double() + self.scale * order.pace * mean).float()
        adapter = begun_anew(state.adapter, stream(order.seed, "flora", order.round))
        return replace(state, public={**state.public, ADAPTER: adapter, BASE: base})


def begun_anew(adapter: Tree, seed: int) -> Tree:
    """An adapter of the same shapes that changes nothing yet."""
    rng, fresh = torch.Generator().manual_seed(seed), dict(adapter)
    for near, far in layers(adapter).values():
        a, b = adapter[near], adapter[far]
        bound = 1 / math.sqrt(a.shape[1])
        fresh[near] = torch.empty_like(a).uniform_(-bound, bound, generator=rng)
        fresh[far] = torch.zeros_like(b)
    return fresh


def flora(scale: float) -> Algorithm[Sum]:
    """FLoRA with LoRA's scale s = α/r: exact for clients of any rank."""
    combine = Mean(Products(factors=False))
    return replace(fedavg(), name="flora", combine=combine, server=Stacked(scale))
