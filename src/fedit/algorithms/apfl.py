"""APFL: a mixture of the global and an own model (Deng et al., arXiv 2003.13461, Algorithm 1)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import fedavg
from fedit.core.fitting import Fitter, Work
from fedit.core.messages import Home, Order
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree, map_trees

OWN = "own part"
"""Home role of v; a client's own model is αv + (1 − α)w."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """FedAvg's training of w, sent; then v moves so that αv + (1 − α)w_k is trained, w_k standing still.

    The mixture is trained as any model is and v follows by (m⁺ − m)/α, where the paper steps along
    α∇f(m): under plain SGD that is a step 1/α² as long; α² in the learning rate would undo it.
    """

    alpha: float
    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        found, own = fit(start), home.payload.get(OWN, start)
        if self.alpha:
            mixed = mix(self.alpha, own, found.fitted)
            after = fit(mixed, again=OWN).fitted
            own = map_trees(lambda v, new, old: v + (new - old) / self.alpha, own, after, mixed)
        return Work(found, home={OWN: own})


def mix(alpha: float, own: Tree, general: Tree) -> Tree:
    """αv + (1 − α)w; exactly w where α = 0 and v where α = 1."""
    if alpha in (0.0, 1.0):
        return own if alpha else general
    return map_trees(lambda v, w: alpha * v + (1 - alpha) * w, own, general)


def apfl(alpha: float = 0.5) -> Algorithm[Sum]:
    """APFL with α in [0, 1]: 0 is the global model alone, 1 a model of each client's own."""

    def own(received: Tree, order: Order, home: Home, fit: Fitter) -> Tree:
        return mix(alpha, home.payload.get(OWN, received), received)

    return replace(fedavg(), name="apfl", local=Mixed(alpha), own=own)
