"""Sums of products of LoRA's factors, as large as the layers and flat in the cohort."""

from dataclasses import dataclass

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

    def __call__(self, total: Sum, update: Update, order: Order) -> None:
        weight = order.weights[update.client]
        payload = {**update.payload, PRODUCT: products(update.payload[ADAPTER])}
        if not self.factors:
            del payload[ADAPTER]
        total.add(payload, weight)


def empty_base(adapter: Tree) -> Tree:
    """Nothing yet to add to the base, [out × in] by layer."""
    return {layer: product.float().zero_() for layer, product in products(adapter).items()}
