"""One client's part of a round, the same on every engine."""

from typing import Any

from fedit.core.errors import FeditError
from fedit.core.gate import not_finite
from fedit.core.messages import ADAPTER, Home, Order, Payload, Update
from fedit.core.seats import Algorithm, Fit, Pull, Trainer
from fedit.core.tree import Tree, only

KEPT = "kept"
"""Home role of the trained parameters that do not travel."""

MEMORY = "memory."
"""Prefix of the home roles that hold the local optimizer's memory."""


def answer(
    order: Order, client: str, home: Home, trainer: Trainer, algorithm: Algorithm[Any]
) -> tuple[Update, Home]:
    """Carry out an order: restore what stayed at home, train, seal, and part what travels from what stays.

    Raises whatever the trainer raises, and FeditError where training diverged: nothing of it is sent or
    kept. The engine turns either into a Failure.
    """
    received = {**order.public[ADAPTER], **order.personal.get(client, {}).get(ADAPTER, {})}
    start = {**received, **home.payload.get(KEPT, {})}
    memory: Payload = {
        role.removeprefix(MEMORY): tree
        for role, tree in home.payload.items()
        if role.startswith(MEMORY)
    }

    def fit(start: Tree, pull: Pull | None = None) -> Fit:
        return trainer.fit(client, order, start, pull, memory)

    work = algorithm.local(start, order, home, fit)
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
