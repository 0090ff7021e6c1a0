"""IFCA: several models, each client trains the one that fits it best (Ghosh et al., arXiv 2006.04088)."""

import math
from dataclasses import dataclass, replace

import torch

from fedit.algorithms.fedavg import Mean, Replace, fedavg
from fedit.core.codes import Unfit
from fedit.core.fitting import Fitter, Work
from fedit.core.messages import ADAPTER, CLUSTER, Home, Order, State, Update, models, role_of
from fedit.core.seats import Algorithm
from fedit.core.seeds import stream
from fedit.core.sums import Sum
from fedit.core.tree import Tree


@dataclass(frozen=True, slots=True)
class Choosing:
    """Trains the model with the least loss on the client's data (Algorithm 1, option II) and says which."""

    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        known = models(order.public)
        best = chosen(known, fit)
        found = fit(known[best])
        return Work(replace(found, metrics={**found.metrics, CLUSTER: float(best)}))


def chosen(known: list[Tree], fit: Fitter) -> int:
    """The number of the model with the least loss, the first of equals; NaN is more than any number."""
    losses = [fit.loss(model) for model in known] if len(known) > 1 else [0.0]
    return min(range(len(known)), key=lambda k: (math.isnan(losses[k]), losses[k]))


def from_chosen(update: Update, order: Order) -> Tree:
    """The model that an update was trained from. Raises `Unfit` where it names none that there is."""
    known, said = models(order.public), update.metrics.get(CLUSTER, math.nan)
    if said not in range(len(known)):
        raise Unfit("metrics", f"{CLUSTER} is {said}, expected 0 to {len(known) - 1}")
    return known[int(said)]


def best_model(received: Tree, order: Order, home: Home, fit: Fitter) -> Tree:
    """The cluster's model that a client would train."""
    known = models(order.public)
    return known[chosen(known, fit)]


def by_cluster(total: Sum, update: Update, order: Order) -> None:
    """A sum for each cluster."""
    role = role_of(int(update.metrics[CLUSTER]))
    total.add({role: update.payload[ADAPTER]}, order.weights[update.client])


@dataclass(frozen=True, slots=True)
class EachItsOwn:
    """FedAvg's step for each cluster that somebody chose; the others stay.

    The first cluster starts at the run's adapter, the others beside it: each number is moved by a
    normal draw times `spread` and its tensor's standard deviation, or 0.01 where that is 0.
    """

    clusters: int
    spread: float
    seed: int

    def init(self, adapter: Tree) -> State:
        public = {role_of(k): self._beside(adapter, k) for k in range(1, self.clusters)}
        return State(0, {ADAPTER: adapter, **public})

    def _beside(self, adapter: Tree, cluster: int) -> Tree:
        rng = torch.Generator().manual_seed(stream(self.seed, "ifca", cluster))
        moved = Tree()
        for name, tensor in adapter.items():
            if tensor.is_meta:  # only its shape is asked for
                moved[name] = tensor
                continue
            noise = torch.randn(tensor.shape, generator=rng)
            deviation = float(tensor.std(correction=0)) or 0.01
            moved[name] = tensor + self.spread * deviation * noise
        return moved

    def step(self, state: State, total: Sum, order: Order) -> State:
        public = dict(state.public)
        for role in total.masses:
            own = Sum({ADAPTER: total.mass(role)}, total.level)
            own.numbers, own.shapes = {ADAPTER: total.numbers[role]}, {ADAPTER: total.shapes[role]}
            public[role] = Replace().step(State(0, {ADAPTER: public[role]}), own, order).adapter
        return replace(state, public=public)


def ifca(clusters: int, spread: float = 0.1, seed: int = 0) -> Algorithm[Sum]:
    """IFCA with so many clusters ≥ 1; one cluster is FedAvg, bit for bit."""
    return replace(
        fedavg(),
        name="ifca",
        local=Choosing(),
        combine=Mean(by_cluster),
        server=EachItsOwn(clusters, spread, seed),
        begins=best_model,
        own=best_model,
        reads={CLUSTER: (0.0, clusters - 1.0)},
        origin=from_chosen,
    )
