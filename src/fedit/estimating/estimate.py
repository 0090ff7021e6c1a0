"""The estimate of a plan: everything that can be counted, and hours from a short calibration."""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedit.build import Job, build, on_workers
from fedit.config import Plan, Workers
from fedit.core.seats import as_it_is, everything
from fedit.core.shares import GROUPS
from fedit.engines.processes import available_cores
from fedit.estimating import parameters
from fedit.estimating.calibration import SECONDS, Speed, calibrate
from fedit.estimating.machine import free, resident
from fedit.estimating.memory import Memory, memory
from fedit.estimating.traffic import Traffic, replay
from fedit.records import peak_memory_mib


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters: of the base, of the adapter that trains and travels, and those each token meets."""

    base: int
    adapter: int
    active: int

    @property
    def share(self) -> float:
        """The adapter's in the base's."""
        return self.adapter / self.base


@dataclass(frozen=True, slots=True)
class Hours:
    """Seconds of the whole run: to load, to train, on the server, to score held-out loss."""

    loading: float
    training: float
    server: float
    evaluation: float

    @property
    def total(self) -> float:
        """All of it; answers to held-out questions, which `fedit evaluate` makes, are not part of a run."""
        return self.loading + self.training + self.server + self.evaluation


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take; bytes and tokens are sums over all its rounds.

    `full` is the same run if it exchanged every weight of the base, in fp32 as adapters are. `flops` are
    `per_token` · tokens: forward 2·N and backward 2·N through frozen weights, 2·N more where they train, N
    being `counts.active`. `hours` is None without a calibration.
    """

    plan: Plan
    clients: int
    counts: Counts
    memory: Memory
    device: str
    free: int | None
    traffic: Traffic
    full: Traffic
    per_token: int
    hours: Hours | None
    notes: list[str]

    @property
    def flops(self) -> float:
        """Of training, in all."""
        return self.per_token * self.traffic.tokens

    def to_dict(self) -> dict[str, Any]:
        """JSON values: sizes in bytes, times in seconds."""
        rounds = self.plan.federation.rounds
        return {
            "rounds": rounds,
            "clients": self.clients,
            "cohort": self.traffic.replies / rounds,
            "parameters": {**asdict(self.counts), "share": self.counts.share},
            "memory": {**asdict(self.memory), "device": self.device, "free": self.free},
            "tokens": _per(self.traffic.tokens, rounds),
            "flops": {**_per(self.flops, rounds), "per_token": self.per_token},
            "bytes": _bytes(self.traffic, rounds),
            "full": {
                **_bytes(self.full, rounds),
                "ratio": _both(self.full) / _both(self.traffic),
            },
            "seconds": self.hours and {**asdict(self.hours), "total": self.hours.total},
            "notes": self.notes,
        }


def estimate(plan: Plan, *, calibrated: bool = True, libraries: float = 0.0) -> Estimate:
    """Say what a run of the plan will take: parameters, memory, tokens, FLOPs, bytes and seconds.

    Data, partition and tokenizer are read, and of the base its configuration. Where `calibrated`, the
    weights are loaded as well, and real steps are timed for about ten seconds; that is left out, with a
    note, where they would not fit into this machine's memory. `libraries` are the seconds that a run takes
    before it begins to load. Nothing is written. Raises InputError.
    """
    with TemporaryDirectory() as folder:  # for the tokens
        return _estimated(plan, Path(folder), calibrated, libraries)


def _estimated(plan: Plan, folder: Path, calibrated: bool, libraries: float) -> Estimate:
    began = time.perf_counter() - libraries
    job = build(plan, folder, blank=True)
    loading = time.perf_counter() - began
    base, tree = (
        parameters.blank_tree(parameters.base_parameters(job)),
        parameters.blank_tree(job.adapted.parameters),
    )
    counts = Counts(
        sum(t.numel() for t in base.values()),
        parameters.count(job.adapted.parameters),
        parameters.active(job),
    )
    found = Estimate(
        plan,
        len(job.engine.clients()),
        counts,
        memory(job, tree, resident()),
        str(job.base.device),
        free(job.base.device),
        replay(job, tree),
        replay(_of_everything(job), base),
        (6 if plan.adapter.kind == "full" else 4) * counts.active,
        None,
        [*job.notes, *_workers_note(plan)],
    )
    return _timed(found, job, loading) if calibrated else found


def _of_everything(job: Job) -> Job:
    """The same run with every parameter in every message as it is, whatever its method picks by name."""
    whole = replace(job.algorithm, scope=everything, guards=(), down=as_it_is)
    return replace(job, algorithm=whole)


def _timed(found: Estimate, job: Job, loading: float) -> Estimate:
    needed = found.memory.peak
    if job.base.device.type == "cpu":
        needed -= found.memory.process  # which is taken already
    if found.free is not None and needed > found.free:
        note = (
            f"this machine cannot hold the run: it needs {needed / 2**30:,.1f} GiB more on {found.device} "
            f"and {found.free / 2**30:,.1f} GiB are free, so nothing was timed; try a smaller "
            "local.micro_batch, model.gradient_checkpointing or model.quantise"
        )
        return replace(found, notes=[*found.notes, note])
    before = peak_memory_mib()
    hours = _hours(found, job, calibrate(job, SECONDS), loading)
    reached = peak_memory_mib()
    if job.base.device.type == "cpu" and reached > before:
        found = replace(found, memory=found.memory.reached(round(reached * 2**20)))
    return replace(found, hours=hours)


def _hours(found: Estimate, job: Job, speed: Speed, loading: float) -> Hours:
    plan, traffic = found.plan, found.traffic
    rounds, every = plan.federation.rounds, plan.evaluation.every
    at_once = clients_at_once(plan, traffic.replies / rounds)
    scored = rounds // every + 1 + (rounds % every > 0)  # the start, every so often, and the end
    held = [*job.test.rows, *(job.validation.rows if plan.evaluation.clients else ())]
    training = (
        speed.client * traffic.replies + speed.step * traffic.steps + speed.token * traffic.tokens
    )
    return Hours(
        loading + speed.loading,
        training / at_once,
        speed.round * rounds,
        scored * speed.scored * sum(len(row.ids) for row in held),
    )


def clients_at_once(plan: Plan, cohort: float) -> float:
    """How many clients of a cohort train at the same time on average, one for each core at the most."""
    workers, groups = _processes(plan), max(1, min(round(cohort), GROUPS))
    return groups / math.ceil(groups / workers)


def _processes(plan: Plan) -> int:
    """Processes that train and have a core."""
    if not on_workers(plan):
        return 1
    assert isinstance(plan.engine, Workers)
    return min(plan.engine.processes or available_cores(), available_cores())


def _workers_note(plan: Plan) -> list[str]:
    if (workers := _processes(plan)) == 1:
        return []
    return [
        f"engine: time assumes that each of {workers} workers is as fast as one thread by itself, which "
        "cores that share memory and clock do not quite reach; memory is that of a run in one process"
    ]


def _per(total: float, rounds: int) -> dict[str, float]:
    return {"round": total / rounds, "run": total}


def _bytes(traffic: Traffic, rounds: int) -> dict[str, dict[str, float]]:
    return {
        way: {"client": total / traffic.replies, **_per(total, rounds)}
        for way, total in (("down", traffic.down), ("up", traffic.up))
    }


def _both(traffic: Traffic) -> float:
    return traffic.down + traffic.up
