"""FedAvg: the weighted mean of what the clients fitted (McMahan et al., arXiv 1602.05629, Algorithm 1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedit.core.fitting import Fitter, Work
from fedit.core.messages import ADAPTER, Home, Order, State, Update
from fedit.core.seats import Algorithm, everything
from fedit.core.sums import Sum
from fedit.core.tree import Tree, only


@dataclass(frozen=True, slots=True)
class PlainLocal:
    """Train from what was received; send nothing more, keep nothing more."""

    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        return Work(fit(start))


@dataclass(frozen=True, slots=True)
class Weighed:
    """An update enters a sum with its order's weight; in the roles of `alike` every client counts once."""

    alike: tuple[str, ...] = ()

    def __call__(self, total: Sum, update: Update, order: Order) -> None:
        for role, tree in update.payload.items():
            weight = 1.0 if role in self.alike else order.weights[update.client]
            total.add({role: tree}, weight)


@dataclass(frozen=True, slots=True)
class Mean:
    """A sum that updates enter by `adding`, one at a time: memory does not grow with the cohort."""

    adding: Callable[[Sum, Update, Order], None] = Weighed()
    linear: bool = True

    def start(self, order: Order, spare: Sum | None = None) -> Sum:
        return Sum(numbers=spare.numbers, shapes=spare.shapes) if spare else Sum()

    def add(self, total: Sum, update: Update, order: Order) -> Sum:
        self.adding(total, update, order)
        return total

    def merge(self, total: Sum, other: Sum) -> Sum:
        total.merge(other)
        return total


@dataclass(frozen=True, slots=True)
class Replace:
    """w ← w + pace · (mean − w): with pace 1 exactly the mean; what did not travel stays."""

    def init(self, adapter: Tree) -> State:
        return State(0, {ADAPTER: adapter})

    def step(self, state: State, total: Sum, order: Order) -> State:
        old, moved = state.adapter, Tree()
        for name, summed in total.sums().items():  # one at a time: fp64 takes twice the memory
            mean = summed / total.mass()
            moved[name] = torch.lerp(old[name].double(), mean, order.pace).to(old[name].dtype)
        return State(state.round, {**state.public, ADAPTER: {**old, **moved}}, state.private)


def moved(state: State, stepped: State, order: Order) -> Tree:
    """What a step changed of what travelled, in fp64: the pseudo-gradient of a server's optimizer."""
    new, old = only(stepped.adapter, order.travels), state.adapter
    return {name: t.double() - old[name].double() for name, t in new.items()}


def fedavg() -> Algorithm[Sum]:
    """FedAvg: one client and one round are plain local training, bit for bit."""
    return Algorithm("fedavg", PlainLocal(), everything, Mean(), Replace())
