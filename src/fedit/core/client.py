"""One client's part of a round, the same on every engine."""

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fedit.core.errors import FeditError
from fedit.core.fitting import Aim, Fit, Look, Pull, Trainer
from fedit.core.gate import not_finite
from fedit.core.lora import filled
from fedit.core.messages import ADAPTER, KEPT, Home, Order, Payload, Update, received_by
from fedit.core.seats import Algorithm
from fedit.core.tree import Tree, only

_HUGE = 1e4  # no parameter of a model that trains is as large

MEMORY = "memory."
"""Prefix of the home roles that hold the local optimizer's memory."""


def answer(
    order: Order, client: str, home: Home, trainer: Trainer, algorithm: Algorithm[Any]
) -> tuple[Update, Home]:
    """Carry out an order: restore what stayed at home, train, seal, and part what travels from what stays.

    Raises whatever the trainer raises, and FeditError where training diverged: nothing of it is sent or
    kept. The engine turns either into a Failure.
    """
    received = received_by(client, order)
    start = {**received, **home.payload.get(KEPT, {})}
    memory = _memory(home)
    work = algorithm.local(start, order, home, _Fitter(client, order, trainer, memory))
    for tree in (work.fit.fitted, *work.fit.memory.values(), *work.home.values()):
        if name := not_finite(tree):
            raise _diverged(f"{name} holds NaN or infinity", start)
    for key, value in work.fit.metrics.items():
        if not math.isfinite(value):
            raise _diverged(f"{key} is {value}", start)
    payload = {ADAPTER: only(work.fit.fitted, order.travels), **work.extra}
    update = Update(client, order.round, order.attempt, payload, work.fit.metrics)
    stays = dict(work.home)
    for guard in algorithm.guards:
        update, keeps = guard.seal(update, order, home)
        stays |= keeps
    private = only(work.fit.fitted, order.trains - order.travels)
    if kept := {**home.payload.get(KEPT, {}), **private}:  # what did not train stays as it was
        stays[KEPT] = kept
    for role, tree in work.fit.memory.items():
        stays[MEMORY + role] = {**memory.get(role, {}), **tree}
    return update, Home(stays)


def _diverged(what: str, start: Tree) -> FeditError:
    largest = max((float(t.abs().max()) for t in start.values() if t.numel()), default=0.0)
    remedy = "begin anew with a lower local.lr"
    if largest > _HUGE:
        remedy = (
            f"it began at numbers up to {largest:.3g}, which some update has brought: begin anew with "
            "gate.factors or gate.times_median, which bound updates"
        )
    return FeditError(f"training diverged: {what}; {remedy}")


def own_model(
    order: Order, client: str, home: Home, trainer: Trainer, algorithm: Algorithm[Any]
) -> Tree:
    """A client's own model as it now stands, of the shapes that the trainer's model has.

    The order says what the client would receive. What a method tunes first is trained here and not kept;
    raises whatever the trainer raises.
    """
    fit = _Fitter(client, order, trainer, _memory(home))
    return algorithm.own(received_by(client, order), order, home, fit)


def tuned_model(
    order: Order,
    client: str,
    home: Home,
    trainer: Trainer,
    algorithm: Algorithm[Any],
    rank: int,
) -> Tree:
    """What a client would begin a round with, trained on its rows once more by any method's plain means.

    `rank` is that of the trainer's model (0 without LoRA), where the client's own may be less.
    """
    fit = _Fitter(client, order, trainer, {})
    start = algorithm.begins(received_by(client, order), order, home, fit)
    return fit(filled(start, rank), again="tuned").fitted


def _memory(home: Home) -> Payload:
    return {
        role.removeprefix(MEMORY): tree
        for role, tree in home.payload.items()
        if role.startswith(MEMORY)
    }


@dataclass(frozen=True, slots=True)
class _Fitter:
    """The trainer bound to a client and an order."""

    client: str
    order: Order
    trainer: Trainer
    memory: Payload

    def __call__(
        self,
        start: Tree,
        pull: Pull | None = None,
        *,
        look: Look | None = None,
        trains: frozenset[str] | None = None,
        again: str = "",
    ) -> Fit:
        aim = Aim(pull, look, trains, again)
        if not again:
            return self.trainer.fit(self.client, self.order, start, aim, self.memory)
        return replace(self.trainer.fit(self.client, self.order, start, aim, {}), memory={})

    def loss(self, at: Tree) -> float:
        return self.trainer.loss(self.client, self.order, at)

    def texts(self, at: Tree) -> Tensor:
        return self.trainer.texts(self.client, self.order, at)
