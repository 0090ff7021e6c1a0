"""A crew of Ray actors, on this machine or over a cluster; the only module that imports Ray."""

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedit.core.errors import FeditError, InputError, brief
from fedit.engines.cluster import connect, need_ray
from fedit.engines.crew import LIVES, Crew, Died, Do, Duty, Result, Worker

PATIENCE = 300.0
"""Seconds to wait for the cluster to give room to a first actor."""

_TICK = 1.0  # seconds between two looks at what room there is


class Actor(Worker):
    """An actor; it is given work once it has answered `called`, which is asked anew whenever one dies."""

    def __init__(self, ray: Any, handle: Any):
        self._ray, self.handle = ray, handle
        self.answer: Any = None
        self.born = False
        self.call()

    def call(self) -> None:
        """Ask whether it is there."""
        self.called: Any = self.handle.ready.remote()

    def send(self, news: Any, what: Any) -> None:
        self.answer = self.handle.do.remote(news, what)

    def receive(self) -> Result:
        try:
            found: Result = self._ray.get(self.answer)
            return found
        except self._ray.exceptions.RayTaskError:
            raise  # a defect: `Duty` lets no error of a task through
        except self._ray.exceptions.RayError as error:
            raise Died(brief(error)) from None


class Actors(Crew):
    """At most `most` actors of so many `cpus` and `gpus` each; None is as many as there is room for.

    `address` is that of a running cluster, which is left alone in the end; None starts Ray on this
    machine, unless the script has already, and shuts it down again. `opened`, put once into Ray's store, is
    called in every actor; arrays in it are shared by all actors of a machine, and nobody may write to them.
    All machines must see `folder`. Raises InputError where the cluster cannot be reached.
    """

    def __init__(
        self,
        opened: Callable[[], Do],
        folder: Path,
        *,
        address: str | None = None,
        cpus: float = 1,
        gpus: float = 0,
        most: int | None = None,
    ):
        super().__init__()
        need_ray()
        self._make, self._address, self._most = opened, address, most
        self._needs = {name: n for name, n in (("CPU", cpus), ("GPU", gpus)) if n}
        self._mark = folder.absolute() / "homes" / f".{uuid.uuid4().hex}.seen"
        self._threads = max(1, int(cpus))
        self._joined = self._ours = False
        self._join()

    def close(self) -> None:
        """End every actor, and Ray where it was started or joined here."""
        if self._joined:
            super().close()
            self._mark.unlink(missing_ok=True)
            with suppress(OSError):  # clients have homes there
                self._mark.parent.rmdir()
            self._joined, self._opened = False, None
            if self._ours:
                self._ray.shutdown()

    def _join(self) -> None:
        if self._joined:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is started
        import ray

        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            connect(ray, self._address)
        self._joined, self._lost = True, 0
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        self._mark.touch()
        self._opened = ray.put(_Sighted(self._make, self._mark))

    def _begin(self, news: Any) -> Any:
        self._join()
        self._call_the_roll()
        return None if news is None else self._ray.put(news)

    def _bury(self, worker: Worker, *given: Any) -> Any:
        task = super()._bury(worker, *given)
        self._ray.kill(worker.handle)  # type: ignore[attr-defined]  # it may only be out of reach
        self._call_the_roll()  # if its machine is gone, so are others, whose deaths are no task's fault
        return task

    def _call_the_roll(self) -> None:
        for actor in self._workers:
            if actor.task is None and actor.born:
                actor.born = False
                actor.call()

    def _free(self, wanted: int) -> Worker | None:
        self._wait_for_births(0)
        idle = [actor for actor in self._workers if actor.task is None]
        room = self._room() if wanted > len(idle) else 0
        for _ in range(min(wanted - len(idle), room - len(self._workers))):
            self._workers.append(Actor(self._ray, self._hire()))
        return next((actor for actor in idle if actor.born), None)

    def _hire(self) -> Any:
        options = {"num_cpus": self._needs.get("CPU", 0), "num_gpus": self._needs.get("GPU", 0)}
        made = self._ray.remote(Duties).options(**options, max_restarts=0)
        return made.remote(self._opened, self._threads)

    def _room(self) -> int:
        """Actors that the living machines could hold were they free of others' work."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                room += int(min(has.get(name, 0) / n + 1e-6 for name, n in self._needs.items()))
        return room if self._most is None else min(room, self._most)

    def _wait(self, busy: Sequence[Actor]) -> Iterable[Worker]:
        waited = 0.0
        while not busy and not any(actor.born for actor in self._workers):
            if not self._room():
                needs = " and ".join(f"{n:g} {name}" for name, n in self._needs.items())
                raise FeditError(
                    f"engine: Ray has no machine with {needs} for an actor (any more); lower engine.cpus or "
                    "engine.gpus, or give the cluster such a machine, then resume"
                )
            if waited > PATIENCE:
                raise FeditError(
                    f"engine: Ray gave no actor its place for {PATIENCE:.0f} seconds, so others use the "
                    "cluster; wait for them, or lower engine.cpus or engine.gpus, then resume"
                )
            if not self._workers:
                return []  # the next look at what is free hires
            self._wait_for_births(_TICK)
            waited += _TICK
        if not busy:
            return []
        answers = {actor.answer: actor for actor in busy}
        calls = [actor.called for actor in self._workers if not actor.born]
        self._ray.wait([*answers, *calls], timeout=_TICK, fetch_local=False)
        self._wait_for_births(0)  # one that is ready and not looked at would be found for ever
        every = {"num_returns": len(answers), "timeout": 0, "fetch_local": False}
        found, _ = self._ray.wait(list(answers), **every)
        return [answers[ref] for ref in found]

    def _wait_for_births(self, seconds: float) -> None:
        called = {actor.called: actor for actor in self._workers if not actor.born}
        if not called:
            return
        found, _ = self._ray.wait(list(called), timeout=seconds)
        while found:
            for ref in found:
                actor = called.pop(ref)
                try:
                    self._ray.get(ref)
                    actor.born, self._lost = True, 0
                except self._ray.exceptions.RayError as error:
                    self._workers.remove(actor)
                    self._lost += 1
                    if self._lost >= LIVES * max(1, self._room()):
                        raise FeditError(
                            f"engine: actors die before they begin: {brief(error)}; every machine of the "
                            "cluster needs the same fedit and Python"
                        ) from None
            found = self._ray.wait(list(called), timeout=0)[0] if called else []

    def _end(self, workers: Sequence[Actor]) -> None:
        for actor in workers:
            self._ray.kill(actor.handle)
            self._workers.remove(actor)


class Duties:
    """What lives in an actor."""

    def __init__(self, opened: Callable[[], Do], threads: int):
        self._duty = Duty(opened, threads)

    def ready(self) -> None:
        """Answers once the actor is there."""

    def do(self, news: Any, what: Any) -> Result:
        """Do one task."""
        return self._duty(news, what)


@dataclass(frozen=True)
class _Sighted:
    """Opens a worker only where the file of the run's folder can be seen."""

    opened: Callable[[], Do]
    mark: Path

    def __call__(self) -> Do:
        if not self.mark.exists():
            raise InputError(
                f"output {self.mark.parent.parent}: machine {socket.gethostname()} of the cluster does not "
                "see this folder; all must share it under this path, over NFS for instance"
            )
        return self.opened()
