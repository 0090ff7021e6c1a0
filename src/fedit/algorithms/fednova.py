"""FedNova: clients that take unlike numbers of steps (Wang et al., arXiv 2007.07481, equation 8)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import Mean, Replace, fedavg
from fedit.core.messages import Order, State, Update
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree

_WEIGHT, _STEPS = "weight", "weighted steps"


def normalised(total: Sum, update: Update, order: Order) -> None:
    """FedAvg's sum with weights a_k / τ_k, and Σ a_k and Σ a_k τ_k beside it; τ_k are a client's steps.

    ‖a_k‖₁ of the paper is the number of steps of plain SGD; other optimizers are counted alike here.
    """
    weight, steps = order.weights[update.client], max(1.0, update.metrics["steps"])
    total.add(update.payload, weight / steps)
    total.count(_WEIGHT, weight)
    total.count(_STEPS, weight * steps)


@dataclass(frozen=True, slots=True)
class Effective:
    """w ← w + τ_eff Σ p_k (w_k − w) / τ_k with τ_eff = Σ p_k τ_k; equal steps make it FedAvg's."""

    def init(self, adapter: Tree) -> State:
        return Replace().init(adapter)

    def step(self, state: State, total: Sum, order: Order) -> State:
        weight, steps = total.counts[_WEIGHT], total.counts[_STEPS]
        stretch = (steps / weight) * (total.mass() / weight)
        return Replace().step(state, total, replace(order, pace=order.pace * stretch))


def fednova() -> Algorithm[Sum]:
    """FedNova; with equal numbers of steps it is FedAvg."""
    reads = {"steps": (0.0, 1e9)}
    return replace(
        fedavg(), name="fednova", combine=Mean(normalised), server=Effective(), reads=reads
    )
