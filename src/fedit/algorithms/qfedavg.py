"""q-FedAvg: clients with a high loss count for more (Li et al., arXiv 1905.10497, Algorithm 2)."""

from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import Mean, Replace, fedavg
from fedit.algorithms.parts.losses import LOSS, READS, Told
from fedit.core.fitting import Fitter, Work
from fedit.core.gate import LARGEST
from fedit.core.messages import Home, Order, State, Update
from fedit.core.seats import Algorithm, Local
from fedit.core.sums import Sum
from fedit.core.tree import Tree, norm, only, sub

_MOVED = "moved"  # metric: ‖w − w_k‖ over what travels
_CURVATURE = "curvature"  # Σ h_k


@dataclass(frozen=True, slots=True)
class Moved:
    """`inner`, and how far it went."""

    inner: Local

    @property
    def roles(self) -> tuple[str, ...]:
        return self.inner.roles

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        work = self.inner(start, order, home, fit)
        way = norm(only(sub(work.fit.fitted, start), order.travels))
        return replace(work, fit=replace(work.fit, metrics={**work.fit.metrics, _MOVED: way}))


@dataclass(frozen=True, slots=True)
class Powers:
    """Σ F_k^q w_k, and Σ h_k with h_k = q F_k^(q−1) ‖L(w − w_k)‖² + L F_k^q, without the plan's weights."""

    q: float
    lipschitz: float

    def __call__(self, total: Sum, update: Update, order: Order) -> None:
        loss = max(update.metrics[LOSS], 1e-12)
        square = (self.lipschitz * update.metrics[_MOVED]) ** 2
        power = loss**self.q
        total.add(update.payload, power)
        total.count(_CURVATURE, self.q * power / loss * square + self.lipschitz * power)


@dataclass(frozen=True, slots=True)
class Damped:
    """w ← w − Σ F_k^q L (w − w_k) / Σ h_k: a step towards the mean with weights F_k^q."""

    lipschitz: float

    def init(self, adapter: Tree) -> State:
        return Replace().init(adapter)

    def step(self, state: State, total: Sum, order: Order) -> State:
        pace = self.lipschitz * total.mass() / total.counts[_CURVATURE]
        return Replace().step(state, total, replace(order, pace=pace))


def qfedavg(q: float, lipschitz: float) -> Algorithm[Sum]:
    """q-FedAvg, q in [0, 20] and L > 0, which is 1/lr in the paper (SGD); q = 0 is the cohort's mean."""
    local = Moved(Told(fedavg().local))
    combine, server = Mean(Powers(q, lipschitz)), Damped(lipschitz)
    return replace(
        fedavg(),
        name="qfedavg",
        local=local,
        combine=combine,
        server=server,
        weighs="clients by a power of their loss alone",
        reads={**READS, _MOVED: (0.0, LARGEST)},
    )
