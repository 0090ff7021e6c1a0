"""SCAFFOLD: control variates against client drift (arXiv 1910.06378, Algorithm 1, option II)."""

from dataclasses import dataclass, replace

import torch

from fedit.algorithms.fedavg import Mean, Replace, Weighed, fedavg
from fedit.core.fitting import Fitter, Work
from fedit.core.messages import Home, Order, State
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree, map_trees, only, scale, sub

CONTROL = "control"
"""Role of the control variates: the server's c in public, a client's c_i at home, c_i⁺ − c_i in an update."""


@dataclass(frozen=True, slots=True)
class Controlled:
    """Steps along g − c_i + c; then c_i⁺ = c_i − c + (x − y) / Σ η, the mean gradient on the way.

    This holds for plain SGD alone: not with momentum, adaptive steps or clipped gradients.
    """

    roles: tuple[str, ...] = (CONTROL,)

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        general = only(order.public[CONTROL], order.trains)
        kept = home.payload.get(CONTROL, {})
        mine = {name: kept.get(name, torch.zeros_like(c)) for name, c in general.items()}
        correction = sub(general, mine)
        found = fit(start, lambda now: only(correction, now))
        way = {name: (start[name] - found.fitted[name]) / found.path for name in general}
        change = sub(way, general)
        new = {**kept, **map_trees(torch.add, mine, change)}
        return Work(found, {CONTROL: only(change, order.travels)}, {CONTROL: new})


@dataclass(frozen=True, slots=True)
class Controls:
    """c ← c + Σ (c_i⁺ − c_i) / N beside FedAvg's step: c is the mean of c_i over all N clients."""

    clients: int

    def init(self, adapter: Tree) -> State:
        state = Replace().init(adapter)
        return replace(state, public={**state.public, CONTROL: scale(adapter, 0.0)})

    def step(self, state: State, total: Sum, order: Order) -> State:
        plain, control = Replace().step(state, total, order), dict(state.public[CONTROL])
        for name, change in total.sums(CONTROL).items():
            control[name] = (control[name].double() + change / self.clients).float()
        return replace(plain, public={**plain.public, CONTROL: control})


def scaffold(clients: int) -> Algorithm[Sum]:
    """SCAFFOLD over a population of that many; its first round is FedAvg's, bit for bit."""
    return replace(
        fedavg(),
        name="scaffold",
        local=Controlled(),
        combine=Mean(Weighed(alike=(CONTROL,))),
        server=Controls(clients),
    )
