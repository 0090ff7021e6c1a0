"""Seconds, from actual work: clients' fits, the server's part and scoring, timed for about ten seconds."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy.optimize import nnls

from fedit.build import Job, forward_of, make_adapter, make_base, on_workers
from fedit.core.client import answer
from fedit.core.errors import FeditError
from fedit.core.gate import expected
from fedit.core.guards import opened
from fedit.core.messages import Failure, Order, Update
from fedit.core.rounds import make_order
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess
from fedit.estimating.traffic import shares
from fedit.evaluate.loss import row_losses
from fedit.report.folder import RunFolder
from fedit.train.encoded import apart
from fedit.train.model import fingerprint

SECONDS = 10.0
"""How long a calibration trains and scores; a model whose steps take longer gets four of them."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds a client, a step and a real token of training, a token of scoring, a round, and to load.

    Training is that of one process, of one thread where the plan has workers.
    """

    client: float
    step: float
    token: float
    scored: float
    round: float
    loading: float


def calibrate(blank: Job, seconds: float) -> Speed:
    """Load the base of a job that was built without weights, and time it at the plan's own work.

    Raises FeditError where training fails.
    """
    with _threads(blank.plan.threads):
        began = time.perf_counter()
        base, encoder = make_base(blank.plan)
        adapted = make_adapter(blank.plan, base)
        fingerprint(adapted.model, skip=adapted.parameters.values())  # as a run does when it begins
        loading = time.perf_counter() - began
        forward = forward_of(blank.plan, adapted, encoder.pad_id, base.device)
        trainer = replace(blank.trainer, adapted=adapted, forward=forward)
        job = replace(
            blank, base=base, encoder=encoder, adapted=adapted, forward=forward, trainer=trainer
        )
        with _threads(1 if on_workers(job.plan) else None):
            client, step, token = _fits(job, 0.75 * seconds)
        scored = _scoring(job, 0.25 * seconds)
        return Speed(client, step, token, scored, _server(job), loading)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """So many threads for a while; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fits(job: Job, seconds: float) -> tuple[float, float, float]:
    """Clients of the run's own cohorts train for one step, or for as many as the time allows."""
    parts = shares(job)
    with tempfile.TemporaryDirectory() as folder:
        engine = partial(_engine, job, Path(folder))
        orders = _one_by_one(job)
        _timed(engine(1), next(orders))  # the first step of all allocates and compiles
        points = [_timed(engine(1), next(orders))]
        until = time.perf_counter() + seconds
        while len(points) < 3 or time.perf_counter() < until:
            order = next(orders)
            own = parts[order.cohort[0]].steps
            usual = median(point[2] / point[0] for point in points)
            most = max(2, int(seconds / 4 / usual))
            points.append(_timed(engine(min(own, most) if len(points) % 3 else 1), order))
    return in_parts(points)


def in_parts(points: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """From (steps, tokens, seconds) of some fits the seconds that each fit, step and token takes, all ≥ 0.

    Least squares over relative errors: long fits are timed no better in per cent than short ones.
    """
    steps, tokens, took = (np.array(column) for column in zip(*points, strict=True))
    columns = np.stack([np.ones_like(took), steps, tokens], axis=1) / took[:, None]
    scale = columns.max(axis=0)
    found, _ = nnls(columns / scale, np.ones_like(took))
    client, step, token = (found / scale).tolist()
    return client, step, token


def _engine(job: Job, folder: Path, steps: int) -> InProcess:
    local = job.plan.local.model_copy(update={"steps": steps, "epochs": None})
    trainer = replace(job.trainer, plan=local)
    reply = partial(answer, trainer=trainer, algorithm=job.algorithm)
    return InProcess(reply, job.engine.clients(), Homes(folder))


def _one_by_one(job: Job) -> Iterator[Order]:
    """The run's own orders, each for one client of its cohort, without end."""
    state = job.algorithm.server.init(job.adapted.read())
    clients = job.engine.clients()
    attempt = 0
    while True:
        order = make_order(state, attempt, job.algorithm, job.policy, clients, job.plan.seed)
        for client in order.cohort:
            yield replace(order, weights={client: order.weights[client]})
        attempt += 1


def _timed(engine: InProcess, order: Order) -> tuple[float, float, float]:
    """Steps, real tokens and seconds of one client's part, its sum on the server included."""
    began = time.perf_counter()
    reply = _reply(engine, order)
    return reply.metrics["steps"], reply.metrics["tokens"], time.perf_counter() - began


def _reply(engine: InProcess, order: Order) -> Update:
    """The one client's update. Raises FeditError where it failed."""
    [reply] = engine.ask(order)
    if isinstance(reply, Failure):
        raise FeditError(f"calibration: client {reply.client} failed: {reply.detail}")
    return reply


def _scoring(job: Job, seconds: float) -> float:
    rows = apart([*job.test.rows, *(job.validation.rows if job.plan.evaluation.clients else ())])
    size = job.plan.evaluation.batch
    rows.sort(key=lambda row: len(row.ids))
    batches = [rows[first : first + size] for first in range(0, len(rows), size)]
    if not batches:
        return 0.0
    score = partial(row_losses, job.forward, batch=size)
    score(batches[0])
    until, took, tokens = time.perf_counter() + seconds, 0.0, 0
    for place in np.random.default_rng(0).permutation(len(batches)):
        took += _seconds(partial(score, batches[place]))
        tokens += sum(len(row.ids) for row in batches[place])
        if time.perf_counter() > until:
            break
    return took / tokens


def _server(job: Job) -> float:
    """Combining, the server's step and the checkpoint of one round."""
    algorithm, adapter = job.algorithm, job.adapted.read()
    state = algorithm.server.init(adapter)
    order = next(_one_by_one(job))
    with tempfile.TemporaryDirectory() as path:
        update = _reply(_engine(job, Path(path), 1), order)  # with all that the method measures

    def round() -> None:
        sent = algorithm.down(state)
        total = algorithm.combine.start(order)
        for _ in range(2):
            plain = expected(order, algorithm.local.roles, update.client)
            whole, _ = opened(update, order, algorithm.guards, plain)
            assert isinstance(whole, Update)
            total = algorithm.combine.add(total, whole, order)
        stepped = algorithm.server.step(sent.state, total, order)
        folder.save(replace(stepped, round=1), "calibration")
        folder.log({})
        job.adapted.write(adapter)

    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path))
        try:
            return median(_seconds(round) for _ in range(3))
        finally:
            folder.close()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
