"""FlexLoRA: the mean of the products, cut to each client's rank by SVD (arXiv 2402.11505, section 3)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import Mean, fedavg
from fedit.algorithms.parts.products import PRODUCT, Products
from fedit.core.lora import factored, layers, products, rank_of
from fedit.core.messages import ADAPTER, Order, State
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree


@dataclass(frozen=True, slots=True)
class Refactored:
    """B A ← the best approximation of the mean of B_k A_k that the rank allows, its directions in order.

    A cut to r is the best of rank r as well. Exact if the mean has no higher rank, else the squared error is
    Σ σ_i² over what was left out. The decomposition is of [out × in] and so costs out · in · min(out, in).
    """

    def init(self, adapter: Tree) -> State:
        return State(0, {ADAPTER: adapter})

    def step(self, state: State, total: Sum, order: Order) -> State:
        old, adapter, names = products(state.adapter), dict(state.adapter), layers(state.adapter)
        rank = rank_of(state.adapter)
        for layer, mean in total.mean(PRODUCT).items():
            near, far = names[layer]
            a, b = factored(old[layer] + order.pace * (mean - old[layer]), rank)
            adapter[near], adapter[far] = a.to(adapter[near].dtype), b.to(adapter[far].dtype)
        return replace(state, public={**state.public, ADAPTER: adapter})


def flexlora() -> Algorithm[Sum]:
    """FlexLoRA: clients of any rank; those of a lower one receive the strongest directions."""
    return replace(
        fedavg(), name="flexlora", combine=Mean(Products(factors=False)), server=Refactored()
    )
