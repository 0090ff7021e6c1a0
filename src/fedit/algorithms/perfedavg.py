"""Per-FedAvg: a start from which one step fits each client (Fallah et al., arXiv 2002.07948, first order)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import fedavg
from fedit.core.fitting import Fitter, Look, Work
from fedit.core.messages import Home, Order
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree, scale


@dataclass(frozen=True, slots=True)
class Adapting:
    """Every step takes its gradient at w − α∇f(w), on the next batch; second derivatives are left out."""

    alpha: float
    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        if not self.alpha:
            return Work(fit(start))
        return Work(fit(start, look=Look(lambda g: scale(g, -self.alpha), fresh=True)))


def perfedavg(alpha: float) -> Algorithm[Sum]:
    """Per-FedAvg with α ≥ 0, the step of adaptation; α = 0 is FedAvg, bit for bit.

    A client's own model is the global one trained on its data once more, as a round would train it.
    """
    return replace(fedavg(), name="perfedavg", local=Adapting(alpha), own=tuned)


def tuned(received: Tree, order: Order, home: Home, fit: Fitter) -> Tree:
    """What was received, trained on the client's data as in a round."""
    return fit(received, again="own").fitted
