"""FedAvgM: momentum on the server (Hsu et al., arXiv 1909.06335, section 3.2)."""

from dataclasses import dataclass, field

import torch

from fedit.algorithms.fedavg import Replace, moved
from fedit.core.messages import ADAPTER, Order, State
from fedit.core.seats import Server
from fedit.core.sums import Sum
from fedit.core.tree import Tree

MOMENTUM = "momentum"
"""Private role of the server's momentum, in fp64."""


@dataclass(frozen=True, slots=True)
class Momentum:
    """v ← βv + Δ; w ← w + ηv, where Δ is the step that `inner` would take; β = 0 and η = 1 leave it as it is.

    With β = 0, η is the server's learning rate, such as SCAFFOLD's η_g. Parameters that did not travel in a
    round stay, and so does their momentum.
    """

    lr: float = 1.0
    beta: float = 0.9
    inner: Server[Sum] = field(default_factory=Replace)

    def init(self, adapter: Tree) -> State:
        state = self.inner.init(adapter)
        zeros = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in adapter.items()}
        return State(state.round, state.public, {**state.private, MOMENTUM: zeros})

    def step(self, state: State, total: Sum, order: Order) -> State:
        plain, adapter = self.inner.step(state, total, order), dict(state.adapter)
        momentum = dict(state.private[MOMENTUM])
        for name, delta in moved(state, plain, order).items():
            momentum[name] = self.beta * momentum[name] + delta
            old = adapter[name]
            adapter[name] = (old.double() + self.lr * momentum[name]).to(old.dtype)
        private = {**plain.private, MOMENTUM: momentum}
        return State(state.round, {**plain.public, ADAPTER: adapter}, private)
