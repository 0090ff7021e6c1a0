"""One client's part of a round, the same on every engine."""

from dataclasses import dataclass
from typing import Any

from fedit.core.errors import FeditError
from fedit.core.gate import not_finite
from fedit.core.messages import ADAPTER, KEPT, Home, Order, Payload, Update, received_by
from fedit.core.seats import Aim, Algorithm, Fit, Look, Pull, Trainer
from fedit.core.tree import Tree, only

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
    memory: Payload = {
        role.removeprefix(MEMORY): tree
        for role, tree in home.payload.items()
        if role.startswith(MEMORY)
    }
    work = algorithm.local(start, order, home, _Fitter(client, order, trainer, memory))
    for tree in (work.fit.fitted, *work.fit.memory.values()):
        if name := not_finite(tree):
            raise FeditError(
                f"training diverged: {name} holds NaN or infinity; begin anew with a lower local.lr"
            )
    payload = {ADAPTER: only(work.fit.fitted, order.travels), **work.extra}
    update = Update(client, order.round, order.attempt, payload, work.fit.metrics)
    for guard in algorithm.guards:
        update = guard.seal(update, order)

    stays = dict(work.home)
    private = only(work.fit.fitted, order.trains - order.travels)
    if kept := {**home.payload.get(KEPT, {}), **private}:  # what did not train stays as it was
        stays[KEPT] = kept
    for role, tree in work.fit.memory.items():
        stays[MEMORY + role] = {**memory.get(role, {}), **tree}
    return update, Home(stays)


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
        return self.trainer.fit(self.client, self.order, start, aim, {} if again else self.memory)

    def loss(self, at: Tree) -> float:
        return self.trainer.loss(self.client, self.order, at)
