"""What fair methods need to know: each client's loss at the model it received."""

from dataclasses import dataclass, replace

from fedit.core.fitting import Fitter, Work
from fedit.core.messages import Home, Order
from fedit.core.seats import Local
from fedit.core.tree import Tree

LOSS = "received_loss"
"""Metric: mean loss over the client's data, before it trained."""

READS = {LOSS: (0.0, 1e6)}
"""What the gate lets through for a loss: far more than any guess costs."""


@dataclass(frozen=True, slots=True)
class Told:
    """`inner`, and the loss of what was received, which costs one more pass forward over the data."""

    inner: Local

    @property
    def roles(self) -> tuple[str, ...]:
        return self.inner.roles

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        loss = fit.loss(start)
        work = self.inner(start, order, home, fit)
        return replace(work, fit=replace(work.fit, metrics={**work.fit.metrics, LOSS: loss}))
