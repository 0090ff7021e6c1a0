"""Sums of products of LoRA's factors, as large as the layers and flat in the cohort."""

from dataclasses import dataclass

from fedit.algorithms.fedavg import Mean
from fedit.core.lora import products
from fedit.core.messages import ADAPTER, Order, Update
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


def empty_base(adapter: Tree) -> Tree:
    """Nothing yet to add to the base, [out × in] by layer."""
    return {layer: product.float().zero_() for layer, product in products(adapter).items()}
