"""What a worker does: carries out one run after another on a base that all workers share."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedit.build import forward_of, make_base
from fedit.core.messages import State
from fedit.corpus import read_data
from fedit.evaluate.stored import Scores, write_scores
from fedit.personal import file_of, personal
from fedit.runner import Run
from fedit.score import Loaded, score_items
from fedit.studies.jobs import Job
from fedit.train.adapters import Adapted
from fedit.train.lending import Lent
from fedit.train.model import Base

PRELOAD = ("fedit.studies.work",)
"""Modules that workers share."""


@dataclass(frozen=True)
class Opening:
    """Makes a worker: it opens the lent base, and then carries out one job after another."""

    lent: Lent | None

    def __call__(self) -> Callable[[tuple[None, Job]], None]:
        """The worker's part: a job is done when its scores are on disk."""
        base = self.lent.open() if self.lent else None
        return lambda task: carry_out(task[1], base)


def carry_out(job: Job, base: Base | None) -> None:
    """Run or resume the job, score it and write `scores.json` into its folder."""
    if job.kind == "base":
        job.folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(job.plan.threads or 1)
        plain, encoder = make_base(job.plan, base)
        bare = Adapted(plain.model, {})
        forward = forward_of(job.plan, bare, encoder.pad_id, plain.device)
        base_only = Loaded(job.plan, plain, bare, forward, encoder, State(0, {}), {})
        write_scores(job.folder, _scores(base_only))
        return
    with Run(job.plan, resume=True, lent=base) as run:
        for _ in run.rounds():
            pass
        done = run.job
        done.adapted.load(run.state.public)
        scores = _scores(
            Loaded(
                job.plan,
                done.base,
                done.adapted,
                done.forward,
                done.encoder,
                run.state,
                done.hashes,
            )
        )
    if job.personal:
        for steps in job.personal.tune:
            own = {"limit": job.personal.limit, "tune": steps or None}
            personal(job.folder, name=file_of(steps), **own)
    write_scores(job.folder, scores)  # last: a run that has them is done


def _scores(loaded: Loaded) -> Scores:
    began = time.perf_counter()
    items, _ = score_items(loaded, read_data(loaded.plan).test)
    return Scores(loaded.state.round, time.perf_counter() - began, items)
