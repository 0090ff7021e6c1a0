"""FedAdagrad, FedYogi and FedAdam: adaptive steps on the server (arXiv 2003.00295, Algorithm 2)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fedit.algorithms.fedavg import Replace, moved
from fedit.core.messages import ADAPTER, Order, State
from fedit.core.seats import Server
from fedit.core.sums import Sum
from fedit.core.tree import Tree

FIRST, SECOND = "first", "second"
"""Private roles of the moments, in fp64."""


@dataclass(frozen=True, slots=True)
class Adaptive:
    """m ← β₁m + (1−β₁)Δ; v by `kind`; w ← w + η m / (√v + τ), where Δ is the step that `inner` would take.

    v starts at τ² and becomes v + Δ² (adagrad), v − (1−β₂) Δ² sign(v − Δ²) (yogi) or β₂v + (1−β₂)Δ²
    (adam); there is no correction of bias. Parameters that did not travel in a round stay, and so do
    their moments.
    """

    kind: Literal["adagrad", "yogi", "adam"]
    lr: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    inner: Server[Sum] = field(default_factory=Replace)

    def init(self, adapter: Tree) -> State:
        state = self.inner.init(adapter)
        first = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in adapter.items()}
        second = {name: torch.full_like(t, self.tau**2) for name, t in first.items()}
        return State(state.round, state.public, {**state.private, FIRST: first, SECOND: second})

    def step(self, state: State, total: Sum, order: Order) -> State:
        plain, adapter = self.inner.step(state, total, order), dict(state.adapter)
        first, second = dict(state.private[FIRST]), dict(state.private[SECOND])
        for name, delta in moved(state, plain, order).items():
            m = first[name] = self.beta1 * first[name] + (1 - self.beta1) * delta
            v = second[name] = self._second(second[name], delta.square())
            old = adapter[name]
            adapter[name] = (old.double() + self.lr * m / (v.sqrt() + self.tau)).to(old.dtype)
        private = {**plain.private, FIRST: first, SECOND: second}
        return State(state.round, {**plain.public, ADAPTER: adapter}, private)

    def _second(self, v: Tensor, square: Tensor) -> Tensor:
        if self.kind == "adagrad":
            return v + square
        if self.kind == "yogi":
            return v - (1 - self.beta2) * square * torch.sign(v - square)
        return self.beta2 * v + (1 - self.beta2) * square
