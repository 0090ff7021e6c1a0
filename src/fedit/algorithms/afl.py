"""AFL: weights that rise where the loss is high (Mohri et al., arXiv 1902.00146, Algorithm 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedit.algorithms.fedavg import Mean, Replace, fedavg
from fedit.algorithms.parts.losses import LOSS, READS, Told
from fedit.core.messages import Order, State, Update
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree

MIXTURE = "mixture"
"""Private role of λ: a number in [0, 1] by client, 1 in all."""

_LEAST = 1e-12  # a weight is above 0


def with_loss(total: Sum, update: Update, order: Order) -> None:
    """FedAvg's sum, and each client's loss beside it."""
    total.count(update.client, update.metrics[LOSS])
    total.add(update.payload, order.weights[update.client])


@dataclass(frozen=True, slots=True)
class Agnostic:
    """FedAvg's step; then λ ← the nearest point of the simplex to λ + γ f, f the losses of the cohort."""

    gamma: float
    shares: Mapping[str, float]

    def init(self, adapter: Tree) -> State:
        whole = sum(self.shares.values())
        mixture = {c: torch.tensor(n / whole, dtype=torch.float64) for c, n in self.shares.items()}
        return replace(Replace().init(adapter), private={MIXTURE: mixture})

    def step(self, state: State, total: Sum, order: Order) -> State:
        plain, mixture = Replace().step(state, total, order), state.private[MIXTURE]
        losses = [self.gamma * total.counts.get(client, 0.0) for client in mixture]
        risen = torch.tensor(losses, dtype=torch.float64)
        found = on_simplex(torch.stack(list(mixture.values())) + risen)
        new = dict(zip(mixture, found.unbind(), strict=True))
        return replace(plain, private={**plain.private, MIXTURE: new})


def on_simplex(point: Tensor) -> Tensor:
    """The nearest point (Euclidean) whose coordinates are ≥ 0 and sum to 1 (arXiv 1309.1541, Algorithm 1)."""
    point = point - point.max()  # which changes nothing, and keeps large numbers apart
    ordered = point.sort(descending=True).values
    over = (ordered.cumsum(0) - 1) / torch.arange(1, len(point) + 1)
    shift = over[ordered > over][-1]
    return (point - shift).clamp(min=0)


def _weighed(state: State, order: Order) -> Order:
    """The cohort weighed by λ instead of by the plan."""
    mixture = state.private[MIXTURE]
    weights = {client: max(float(mixture[client]), _LEAST) for client in order.cohort}
    return replace(order, weights=weights, pace=1.0)


def afl(gamma: float, shares: Mapping[str, float]) -> Algorithm[Sum]:
    """AFL with γ ≥ 0, which leaves λ at `shares` (in any unit) where it is 0."""
    return replace(
        fedavg(),
        name="afl",
        local=Told(fedavg().local),
        combine=Mean(with_loss),
        server=Agnostic(gamma, shares),
        prepare=_weighed,
        weighs="clients by its own mixture, which begins at their shares of the rows",
        reads=READS,
    )
