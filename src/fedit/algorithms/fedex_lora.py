"""FedEx-LoRA: what averaging factors loses goes into the base (arXiv 2410.09432, equation 7)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import Mean, Replace, fedavg
from fedit.algorithms.parts.products import PRODUCT, Products, empty_base
from fedit.core.lora import products
from fedit.core.messages import BASE, Order, State
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree


@dataclass(frozen=True, slots=True)
class Residual:
    """W ← W + s (mean of B_k A_k − B A) with B and A the means: W + sBA is exact, whatever the rank."""

    scale: float

    def init(self, adapter: Tree) -> State:
        state = Replace().init(adapter)
        return replace(state, public={**state.public, BASE: empty_base(adapter)})

    def step(self, state: State, total: Sum, order: Order) -> State:
        plain = Replace().step(state, total, order)
        old, new = products(state.adapter), products(plain.adapter)
        base = dict(state.public[BASE])
        for layer, mean in total.mean(PRODUCT).items():
            wanted = old[layer] + order.pace * (mean - old[layer])
            base[layer] = (base[layer].double() + self.scale * (wanted - new[layer])).float()
        return replace(plain, public={**plain.public, BASE: base})


def fedex_lora(scale: float) -> Algorithm[Sum]:
    """FedEx-LoRA with LoRA's s = α/r; clients receive the residual, as large as the layers are."""
    return replace(fedavg(), name="fedex_lora", combine=Mean(Products()), server=Residual(scale))
