"""Ditto: a model of each client's own, drawn to the global one (arXiv 2012.04221, Algorithm 1)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.parts.personal import PERSONAL, own_model
from fedit.core.fitting import Fitter, Work
from fedit.core.messages import Home, Order
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree, scale, sub


@dataclass(frozen=True, slots=True)
class Beside:
    """FedAvg's training, sent; then the client's own v, along ∇f(v) + λ(v − w), kept.

    v starts at the first w received. It trains for as many steps as the global model, on batches of its own.
    """

    strength: float
    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        found = fit(start)
        own = fit(
            home.payload.get(PERSONAL, start),
            lambda now: scale(sub(now, start), self.strength),
            again=PERSONAL,
        )
        return Work(found, home={PERSONAL: own.fitted})


def ditto(strength: float = 0.1) -> Algorithm[Sum]:
    """Ditto with λ = `strength` ≥ 0; λ = 0 is local training beside FedAvg, which it never touches."""
    return replace(fedavg(), name="ditto", local=Beside(strength), own=own_model)
