"""Where a run's clients live: in this process, or on workers of this machine or a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedit import config
from fedit.build.algorithms import make_algorithm
from fedit.build.compression import with_compression
from fedit.build.model import adapt, forward_of, make_base, trains_base
from fedit.build.words import make_objective
from fedit.config import Plan
from fedit.core.client import answer
from fedit.core.errors import BrokenInvariant
from fedit.core.messages import Client
from fedit.core.population import Engine
from fedit.core.seats import Algorithm
from fedit.engines.crew import Crew
from fedit.engines.homes import Homes
from fedit.engines.host import Host
from fedit.engines.inprocess import Answer, InProcess, through_bytes
from fedit.engines.processes import Processes, available_cores
from fedit.engines.ray import Actors
from fedit.engines.workers import Workers
from fedit.report.folder import TOKENS
from fedit.train.adapters import Adapted
from fedit.train.encoded import EncodedRows, EncodedSet
from fedit.train.forward import Forward
from fedit.train.lending import Lent, lend
from fedit.train.model import Base
from fedit.train.stacked import Together, obstacle
from fedit.train.trainer import LocalTrainer

PRELOAD = ("fedit.build",)
"""Modules that workers share."""


@dataclass(frozen=True)
class Hosting:
    """All that makes the clients' side of a run, here or on a worker, to which it travels.

    `shares` are the places of each client's rows among the tokens in the run's `folder`; `lent` is the
    base, None where each worker has to load its own; `algorithm` one that the plan does not name; `odds`
    are the chances of a client's rows to be drawn, where they are not all alike.
    """

    plan: Plan
    folder: Path
    shares: dict[str, NDArray[np.int64]]
    population: Sequence[Client]
    pad: int
    lent: Lent | None = None
    algorithm: Algorithm[Any] | None = None
    odds: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __call__(self) -> Host:
        """A worker's host, with a model of its own on shared weights."""
        model = self.lent.open_model() if self.lent else make_base(self.plan)[0].model
        adapted = adapt(self.plan, model)
        method = self.algorithm or make_algorithm(self.plan, self.population)
        algorithm = with_compression(method, self.plan.compression)
        device = next(adapted.model.parameters()).device
        forward = forward_of(self.plan, adapted, self.pad, device)
        encoded = EncodedSet.open(self.folder / TOKENS[0])
        if encoded is None:
            raise BrokenInvariant(
                f"{self.folder / TOKENS[0]}: was damaged since the run was opened"
            )
        trainer = self.trainer(adapted, forward, encoded)
        return Host(self.clients(trainer, algorithm, (), alone=False), algorithm)

    def on(self, device: str) -> "Hosting":
        """The same for workers elsewhere: on that device, with the folder's whole path."""
        model = self.plan.model.model_copy(update={"device": device})
        plan = self.plan.model_copy(update={"model": model})
        return replace(self, plan=plan, folder=self.folder.absolute())

    def trainer(self, adapted: Adapted, forward: Forward, encoded: EncodedSet) -> LocalTrainer:
        """The clients' trainer on a model in this process."""
        rows: dict[str, EncodedRows] = {c: encoded.select(p) for c, p in self.shares.items()}
        local, rounds = self.plan.local, self.plan.federation.rounds
        objective = make_objective(local)
        return LocalTrainer(adapted, rows, local, rounds, forward, objective, self.odds)

    def clients(
        self,
        trainer: LocalTrainer,
        algorithm: Algorithm[Any],
        population: Sequence[Client],
        *,
        alone: bool,
    ) -> InProcess:
        """The clients in this process."""
        how, homes = self.plan.engine, Homes(self.folder / "homes", alone=alone)
        dropout = self.plan.federation.dropout
        if isinstance(how, config.InProcess) and how.together > 1 and not obstacle(trainer):
            stacked = Together(trainer)
            shared: Answer = partial(answer, trainer=stacked, algorithm=algorithm)
            run = stacked.lockstep.run
            return InProcess(shared, population, homes, dropout, how.together, run)
        reply: Answer = partial(answer, trainer=trainer, algorithm=algorithm)
        if how.kind == "loopback":
            reply = through_bytes(reply, algorithm)
        return InProcess(reply, population, homes, dropout)


def make_engine(
    hosting: Hosting,
    trainer: LocalTrainer,
    algorithm: Algorithm[Any],
    population: Sequence[Client],
    *,
    spread: bool,
) -> Engine:
    """The engine of that name, in this process unless clients are `spread` over workers.

    The trainer is for clients here. Raises InputError where a cluster cannot be reached.
    """
    if not spread:
        return hosting.clients(trainer, algorithm, population, alone=True)
    how = hosting.plan.engine
    crew: Crew
    if isinstance(how, config.Ray):
        crew = Actors(
            hosting.on("cuda" if how.gpus else "cpu"),
            hosting.folder,
            address=how.address,
            cpus=how.cpus,
            gpus=how.gpus,
            most=how.actors,
        )
    else:
        assert isinstance(how, config.Workers)
        crew = Processes(how.processes or available_cores(), hosting, PRELOAD)
    return Workers(crew, population, Homes(hosting.folder / "homes", alone=False))


def on_workers(plan: Plan) -> bool:
    """Whether clients train on workers; in a study's worker they do not, which is one among others."""
    return plan.engine.kind in ("workers", "ray") and not current_process().daemon


def together_note(plan: Plan, trainer: LocalTrainer) -> list[str]:
    """That clients are not trained together although the plan asks for it, and why."""
    together = getattr(plan.engine, "together", 1)
    reason = obstacle(trainer) if together > 1 else None
    if reason is None:
        return []
    return [f"engine.together {together}: clients train one after another, as {reason}"]


def lend_to_workers(plan: Plan, base: Base) -> Lent | None:
    """The base as workers take it over; None where each has to load its own."""
    if trains_base(plan):
        return None
    if not isinstance(plan.engine, config.Ray):
        return lend(base)
    return None if plan.engine.gpus else lend(base, shared=False)
