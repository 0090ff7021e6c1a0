"""FedSAM: clients look for flat minima (arXiv 2206.02618, Algorithm 1; SAM is 2010.01412)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import fedavg
from fedit.core.fitting import Fitter, Look, Work
from fedit.core.messages import Home, Order
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree, norm, scale


@dataclass(frozen=True, slots=True)
class Flat:
    """Every step takes its gradient at w + ρ g / ‖g‖, which costs a second pass over the batch."""

    rho: float
    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        return Work(fit(start, look=Look(self._uphill) if self.rho else None))

    def _uphill(self, gradient: Tree) -> Tree:
        length = norm(gradient)
        return scale(gradient, self.rho / length if length else 0.0)


def fedsam(rho: float = 0.05) -> Algorithm[Sum]:
    """FedSAM with ρ ≥ 0; ρ = 0 is FedAvg, bit for bit."""
    return replace(fedavg(), name="fedsam", local=Flat(rho))
