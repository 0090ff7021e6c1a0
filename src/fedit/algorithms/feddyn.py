"""FedDyn: a regulariser that moves with the rounds (Acar et al., arXiv 2111.04263, Algorithm 1)."""

from dataclasses import dataclass, replace

import torch

from fedit.algorithms.fedavg import Mean, Replace, Weighed, fedavg
from fedit.core.fitting import Fitter, Work
from fedit.core.lora import SKETCH
from fedit.core.messages import ADAPTER, Home, Order, State
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree, map_trees, only

DUAL = "dual"
"""Role of h: a client's h_k at home, their mean over all clients in the server's private state."""


@dataclass(frozen=True, slots=True)
class Regularised:
    """Steps along g − h_k + α(w − w_received); then h_k ← h_k − α(w_k − w_received)."""

    alpha: float
    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        kept = home.payload.get(DUAL, {})
        received = only(start, order.trains)
        mine = {name: kept.get(name, torch.zeros_like(t)) for name, t in received.items()}

        def pull(now: Tree) -> Tree:
            return {n: self.alpha * (t - received[n]) - mine[n] for n, t in now.items()}

        found = fit(start, pull)
        fitted = {name: found.fitted[name] for name in received}
        new = map_trees(lambda h, w_k, w: h - self.alpha * (w_k - w), mine, fitted, received)
        return Work(found, home={DUAL: {**kept, **new}})


@dataclass(frozen=True, slots=True)
class Dual:
    """h ← h − α/N Σ (w_k − w) over the cohort; w ← mean of w_k − h/α. All clients count alike."""

    alpha: float
    clients: int

    def init(self, adapter: Tree) -> State:
        zeros = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in adapter.items()}
        return replace(Replace().init(adapter), private={DUAL: zeros})

    def step(self, state: State, total: Sum, order: Order) -> State:
        adapter, dual = dict(state.adapter), dict(state.private[DUAL])
        for name, summed in total.sums().items():
            old = adapter[name].double()
            dual[name] = dual[name] - self.alpha / self.clients * (summed - total.mass() * old)
            new = summed / total.mass() - dual[name] / self.alpha
            adapter[name] = new.to(adapter[name].dtype)
        return State(state.round, {**state.public, ADAPTER: adapter}, {**state.private, DUAL: dual})


def feddyn(alpha: float, clients: int) -> Algorithm[Sum]:
    """FedDyn with α > 0 over a population of that many; it takes no notice of the plan's weights."""
    return replace(
        fedavg(),
        name="feddyn",
        local=Regularised(alpha),
        combine=Mean(Weighed(alike=(ADAPTER, SKETCH))),
        server=Dual(alpha, clients),
        weighs="all clients of a cohort alike",
    )
