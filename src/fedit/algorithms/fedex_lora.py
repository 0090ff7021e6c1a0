"""FedEx-LoRA: what averaging factors loses goes into the base (arXiv 2410.09432, equation 7)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import Mean, Replace, fedavg
from fedit.core.lora import products
from fedit.core.messages import ADAPTER, BASE, Order, State, Update
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree

PRODUCT = "product"
"""Role in a sum of Σ a_k B_k A_k."""


@dataclass(frozen=True, slots=True)
class Products:
    """FedAvg's sum, and that of the products B_k A_k, [out × in] a layer: it is flat in the cohort."""

    factors: bool = True
    linear: bool = True

    def start(self, order: Order, spare: Sum | None = None) -> Sum:
        return Mean().start(order, spare)

    def add(self, total: Sum, update: Update, order: Order) -> Sum:
        weight = order.weights[update.client]
        payload = {**update.payload, PRODUCT: products(update.payload[ADAPTER])}
        if not self.factors:
            del payload[ADAPTER]
        total.add(payload, weight)
        return total

    def merge(self, total: Sum, other: Sum) -> Sum:
        return Mean().merge(total, other)


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


def empty_base(adapter: Tree) -> Tree:
    """Nothing yet to add to the base, [out × in] by layer."""
    return {layer: product.float().zero_() for layer, product in products(adapter).items()}


def fedex_lora(scale: float) -> Algorithm[Sum]:
    """FedEx-LoRA with LoRA's s = α/r; clients receive the residual, as large as the layers are."""
    return replace(fedavg(), name="fedex_lora", combine=Products(), server=Residual(scale))
