"""HetLoRA: factors of unlike ranks filled up with zeros (Cho et al., arXiv 2401.06432, section 4.2)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import Mean, fedavg
from fedit.core.lora import filled, product_norm
from fedit.core.messages import ADAPTER, Order, Update
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum


@dataclass(frozen=True, slots=True)
class Sparse:
    """The mean of the filled-up factors with weights a_k ‖B_k A_k‖, or a_k where `by_norm` is false.

    The paper's self-pruning of ranks is not here: a client's rank is the plan's.
    """

    rank: int
    by_norm: bool = True

    def __call__(self, total: Sum, update: Update, order: Order) -> None:
        weight, adapter = order.weights[update.client], update.payload[ADAPTER]
        if self.by_norm:
            weight *= max(product_norm(adapter), 1e-12)
        total.add({**update.payload, ADAPTER: filled(adapter, self.rank)}, weight)


def hetlora(rank: int, by_norm: bool = True) -> Algorithm[Sum]:
    """HetLoRA up to that rank; with equal ranks and `by_norm` false it is FedAvg, bit for bit."""
    return replace(fedavg(), name="hetlora", combine=Mean(Sparse(rank, by_norm)))
