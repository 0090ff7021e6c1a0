"""FedProx: FedAvg with clients pulled back to what they received (Li et al., arXiv 1812.06127, eq. 2)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import fedavg
from fedit.core.fitting import Fitter, Work
from fedit.core.messages import Home, Order
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree, scale, sub


@dataclass(frozen=True, slots=True)
class Proximal:
    """Adds μ(w − w_received) to the local gradient, the gradient of μ/2·‖w − w_received‖²."""

    mu: float
    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        return Work(fit(start, pull=lambda now: scale(sub(now, start), self.mu)))


def fedprox(mu: float = 0.01) -> Algorithm[Sum]:
    """FedProx with μ ≥ 0; μ = 0 is FedAvg, bit for bit, and the first local gradient is always FedAvg's."""
    return replace(fedavg(), name="fedprox", local=Proximal(mu))
