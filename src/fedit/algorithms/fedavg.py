"""FedAvg: the weighted mean of what the clients fitted (McMahan et al., arXiv 1602.05629, Algorithm 1)."""

from dataclasses import dataclass

import torch

from fedit.core.messages import ADAPTER, Home, Order, Payload, State, Update
from fedit.core.seats import Algorithm, Fitter, Work, everything
from fedit.core.tree import Tree, cast_like, double


@dataclass(frozen=True, slots=True)
class PlainLocal:
    """Train from what was received; send nothing more, keep nothing more."""

    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        return Work(fit(start))


@dataclass(slots=True)
class Sum:
    """Σ a_k w_k in fp64 by role, Σ a_k, and how far the server shall move towards the mean."""

    sums: Payload
    mass: float
    pace: float

    def mean(self, role: str = ADAPTER) -> Tree:
        """Σ a_k w_k / Σ a_k over the clients that replied, in fp64."""
        return {name: t / self.mass for name, t in self.sums.get(role, {}).items()}


@dataclass(frozen=True, slots=True)
class Mean:
    """The weighted sum, one update at a time: memory does not grow with the cohort."""

    linear: bool = True

    def start(self, order: Order) -> Sum:
        return Sum({}, 0.0, order.pace)

    def add(self, total: Sum, update: Update, weight: float) -> Sum:
        for role, tree in update.payload.items():
            sums = total.sums.setdefault(role, {})
            for name, tensor in tree.items():
                if name in sums:
                    sums[name].add_(tensor, alpha=weight)
                else:
                    sums[name] = double({name: tensor})[name].mul_(weight)
        total.mass += weight
        return total


@dataclass(frozen=True, slots=True)
class Replace:
    """w ← w + pace · (mean − w): with pace 1 exactly the mean; what did not travel stays."""

    def init(self, adapter: Tree) -> State:
        return State(0, {ADAPTER: adapter})

    def step(self, state: State, total: Sum) -> State:
        old = double(state.adapter)
        moved = {n: torch.lerp(old[n], mean, total.pace) for n, mean in total.mean().items()}
        adapter = cast_like({**old, **moved}, state.adapter)
        return State(state.round, {**state.public, ADAPTER: adapter}, state.private)


def fedavg() -> Algorithm[Sum]:
    """FedAvg: one client and one round are plain local training, bit for bit."""
    return Algorithm("fedavg", PlainLocal(), everything, Mean(), Replace())
