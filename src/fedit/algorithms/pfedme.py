"""pFedMe: personal models as Moreau envelopes of the global one (arXiv 2006.08848, Algorithm 1)."""

from dataclasses import dataclass, replace
from functools import partial

import torch

from fedit.algorithms.fedavg import Replace, fedavg
from fedit.algorithms.parts.personal import PERSONAL, own_model
from fedit.core.fitting import Fitter, Pull, Work
from fedit.core.messages import Home, Order, Payload, State
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree, map_trees, scale, sub


@dataclass(frozen=True, slots=True)
class Envelope:
    """`loops` times: θ ≈ the least of f(θ) + λ/2 ‖θ − w‖², by local training from w; then w ← w − ηλ(w − θ).

    w is sent, θ is kept. The paper's inner iterations are the plan's local steps.
    """

    strength: float
    lr: float
    loops: int
    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        now, memory = start, Payload()
        for loop in range(self.loops):
            pull = _towards(now, self.strength)
            found = fit(now, pull, again=f"loop {loop}" if loop else "")
            memory = memory or found.memory  # the first loop's: it alone takes it up again
            step = self.lr * self.strength
            now = map_trees(partial(torch.lerp, weight=step), now, found.fitted)
        return Work(replace(found, fitted=now, memory=memory), home={PERSONAL: found.fitted})


def _towards(anchor: Tree, strength: float) -> Pull:
    return lambda now: scale(sub(now, anchor), strength)


@dataclass(frozen=True, slots=True)
class Partly:
    """w ← (1 − β) w + β mean; β = 0 freezes the server, above 1 it goes beyond the mean."""

    beta: float

    def init(self, adapter: Tree) -> State:
        return Replace().init(adapter)

    def step(self, state: State, total: Sum, order: Order) -> State:
        return Replace().step(state, total, replace(order, pace=self.beta * order.pace))


def pfedme(strength: float, lr: float, loops: int = 1, beta: float = 1.0) -> Algorithm[Sum]:
    """pFedMe with λ = `strength`, η = `lr` (ηλ ≤ 1) and the server's β: w ← (1 − β) w + β mean."""
    return replace(
        fedavg(),
        name="pfedme",
        local=Envelope(strength, lr, loops),
        server=Partly(beta),
        own=own_model,
    )
