"""One run from plan to adapter: opens or resumes a folder, drives the rounds, scores and saves them."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fedit.build import Job, build
from fedit.build.rows import at_their_places, dealt
from fedit.config import Plan
from fedit.core.errors import InputError
from fedit.core.messages import ADAPTER, Payload, State
from fedit.core.population import Engine
from fedit.core.rounds import rounds
from fedit.core.seats import Algorithm
from fedit.core.tree import Tree
from fedit.delivered import deliver
from fedit.engines.homes import Homes
from fedit.heldout import HeldOut
from fedit.recipe import dump_plan
from fedit.records import (
    Record,
    environment,
    numbers_of,
    peak_memory_mib,
    round_record,
)
from fedit.report.folder import RunFolder
from fedit.report.trackers import open_tracker
from fedit.resuming import changes
from fedit.train.model import Base

GIVEN = " (handed over in Python)"
"""Stands in a run's environment after the name of an algorithm that its plan does not name."""


@dataclass(frozen=True)
class Finished:
    """A finished round: its number from 1 (0 is the untrained start), its record, all that clients receive.

    `public` holds by role the global adapter and what a method has besides: what FedEx-LoRA and FLoRA have
    added to the base ("base", [out × in] by the layer's name, as large as the layers), IFCA's further models.
    """

    round: int
    record: Record
    public: Payload = field(repr=False)

    @property
    def adapter(self) -> Tree:
        """The global adapter, which for FedEx-LoRA and FLoRA is not all: see `public`."""
        return self.public[ADAPTER]

    @property
    def loss(self) -> float | None:
        """Held-out nats per token (of a DPO run, per pair), where this round was scored."""
        scored: dict[str, float] = self.record.get("evaluation", {})
        return scored.get("loss")


def run(
    plan: Plan, *, resume: bool = False, algorithm: Algorithm[Any] | None = None
) -> Iterator[Finished]:
    """Federate as planned, yielding each round once it is safe on disk; stop iterating to stop the run.

    `plan.output` (default runs/<name>) becomes the run folder; a folder with a run is continued with
    `resume` and refused without. `algorithm` takes the place of the one the plan names.

    Same plan and seed → same adapter, byte for byte, on one machine.
    Raises InputError, and TooFewReplies where the plan's minimum is not met.
    """
    with Run(plan, resume=resume, algorithm=algorithm) as opened:
        yield from opened.rounds()


class Run:
    """An opened run: everything loaded and checked, nothing trained yet; a context manager."""

    def __init__(
        self,
        plan: Plan,
        *,
        resume: bool = False,
        lent: Base | None = None,
        algorithm: Algorithm[Any] | None = None,
        elsewhere: Engine | None = None,
    ):
        """`lent` is the base of the plan's model section, where it is loaded already.

        `algorithm` takes the place of the one the plan names; `elsewhere` is the engine of clients that
        have their rows at their own places.
        """
        path = Path(plan.folder)
        self._lent, self._given, self._elsewhere = (
            lent,
            algorithm is not None,
            elsewhere is not None,
        )
        self.folder = RunFolder(path)
        self._threads = torch.get_num_threads()
        try:
            self._environment: Record = {}
            self._changed: list[str] = []
            if self.folder.started:
                plan = self._reopen(plan, resume)
            if threads := plan.threads or self._environment.get("threads"):
                torch.set_num_threads(threads)
            self.plan = plan
            reading = at_their_places(elsewhere) if elsewhere is not None else dealt
            self.job: Job = build(plan, path, lent, algorithm=algorithm, reading=reading)
            self.notes = [f"plan changed: {line}" for line in self._changed] + self.job.notes
            words = plan.model_dump(mode="json")
            self._trackers = [open_tracker(t, path, plan.name, words) for t in plan.trackers]
            self._held_out = HeldOut(self.job)
            self._settle()
            self.state = self._start()
        except BaseException:
            if hasattr(self, "job"):
                self.job.engine.close()
            torch.set_num_threads(self._threads)
            self.folder.discard_unstarted()
            self.folder.close()
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.job.engine.close()
        for tracker in self._trackers:
            tracker.close()
        torch.set_num_threads(self._threads)
        self.folder.close()

    def rounds(
        self, watch: Callable[[Engine], Engine] = lambda engine: engine
    ) -> Iterator[Finished]:
        """Run what is left, then deliver; `watch` may wrap the engine to see replies pass."""
        plan, job = self.plan, self.job
        if self._fresh:
            yield self._finish(self.state, {"round": 0})
        began = time.perf_counter()
        for done in rounds(
            self.state,
            job.algorithm,
            watch(job.engine),
            job.policy,
            seed=plan.seed,
            until=plan.federation.rounds,
        ):
            yield self._finish(done.state, round_record(done, time.perf_counter() - began))
            began = time.perf_counter()
        told = self.folder.journal()[-1].get("clients", {})
        self.notes += deliver(job, self.state, told, self.folder.path, self._lent)

    def _finish(self, state: State, record: Record) -> Finished:
        """Score a state if it is due, then journal first and checkpoint second: never a gap."""
        began = time.perf_counter()
        last = state.round == self.plan.federation.rounds
        if state.round % self.plan.evaluation.every == 0 or last:
            record["evaluation"] = self._held_out.score(state)
        record.setdefault("seconds", {})["evaluate"] = time.perf_counter() - began
        record["memory_mib"] = peak_memory_mib()
        record["time"] = time.time()
        self.folder.log(record)
        self.folder.save(state, self._environment["run"])
        self.state = state
        for tracker in self._trackers:
            tracker.log(state.round, numbers_of(record))
        return Finished(state.round, record, state.public)

    def _reopen(self, plan: Plan, resume: bool) -> Plan:
        path = self.folder.path
        if not resume:
            raise InputError(
                f"output {path}: holds a run already; continue it with --resume (resume=True in Python), "
                "or choose another --output"
            )
        self._environment = self.folder.environment()
        self._changed = changes(path, self._environment, plan)
        return plan

    def _settle(self) -> None:
        """Keep plan, versions and hashes with the run; a resumed one must have the same data and base."""
        now = environment(self.job)
        if self._given:  # its name may be that of the plan's
            now["algorithm"] += GIVEN
        for key in ("data", "base", "algorithm"):
            if self._environment.get(key, now[key]) != now[key]:
                raise InputError(
                    f"output {self.folder.path}: {key} has changed since the run began "
                    f"({self._environment[key]} then, {now[key]} now); put it back, or begin anew "
                    "with another --output"
                )
        old: dict[str, str] = self._environment.get("versions") or now["versions"]
        self.notes += [
            f"{name} was {old.get(name)} when the run began and is {new} now: bits may differ"
            for name, new in now["versions"].items()
            if old.get(name) != new
        ]
        self._environment = {**now, **self._environment, "plan": self.plan.model_dump(mode="json")}
        self.folder.write("environment.json", json.dumps(self._environment, indent=1) + "\n")
        self.folder.write("plan.yaml", dump_plan(self.plan))

    def _start(self) -> State:
        state, troubles = self.folder.latest(self._environment["run"])
        self.notes += troubles
        self._fresh = state is None
        self._check_resumable(state, troubles)
        self.folder.rewind(state.round if state else -1)
        return state or self.job.algorithm.server.init(self.job.adapted.read())

    def _check_resumable(self, state: State | None, troubles: list[str]) -> None:
        """Refuse to go on, and so to overwrite, where checkpoints or clients' homes were lost."""
        journal = self.folder.journal()
        if state is None and len(journal) > 1:
            why = "; ".join(troubles) or "there is none"
            raise InputError(
                f"output {self.folder.path}: its journal tells of {len(journal) - 1} rounds, but no "
                f"checkpoint is usable ({why}); restore checkpoints/ from a copy, or begin anew with another "
                "--output"
            )
        if state and not self._elsewhere:
            check_homes(self.folder, state.round)


def check_homes(folder: RunFolder, round: int) -> None:
    """Refuse a run whose clients' homes after `round` rounds were lost, which would count as empty.

    Raises InputError.
    """
    finished = [r.get("clients", {}) for r in folder.journal() if r["round"] <= round]
    keepers = {c for clients in finished for c, m in clients.items() if m.get("bytes_kept")}
    if lost := Homes(folder.path / "homes").unusable(keepers, round):
        raise InputError(
            f"output {folder.path}: what clients keep is missing or damaged for {', '.join(lost)}; "
            "restore homes/ from a copy, or begin anew with another --output"
        )
