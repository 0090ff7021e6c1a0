"""A study from plan to summary: opens or resumes a folder, has every run carried out, and sums up."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from fedit.build import make_base
from fedit.config import Plan, Study
from fedit.evaluate.items import Item
from fedit.evaluate.stored import Scores, read_scores
from fedit.studies.folder import StudyFolder, finished
from fedit.studies.jobs import Job, Jobs, plan_jobs
from fedit.studies.pool import Pool
from fedit.studies.summary import summarise
from fedit.train.lending import Lent, lend
from fedit.train.model import pick_device

Began = Callable[[Job, int], None]
"""Told of a job and the id of the process that begins it."""


@dataclass(frozen=True)
class Done:
    """A run that is safe on disk: the job, its items, and the seconds since it was begun here."""

    job: Job
    items: list[Item] = field(repr=False)
    seconds: float


def study(plan: Study, *, resume: bool = False) -> Iterator[Done]:
    """Run and score every arm over every seed, yielding each run once it is safe on disk.

    The folder (`plan.output`, default runs/<name>) then holds `summary.json`. A folder with a study is
    continued with `resume` and refused without; seeds and arms may have been added. Raises FeditError.
    """
    with OpenStudy(plan, resume=resume) as opened:
        yield from opened.done()
        opened.summarise()


class OpenStudy:
    """An opened study: everything planned and checked, nothing run yet; a context manager."""

    def __init__(self, plan: Study, *, resume: bool = False):
        self.plan, self._seconds = plan, 0.0
        self.planned: Jobs = plan_jobs(plan, Path(plan.folder))
        self.folder = StudyFolder(Path(plan.folder))
        try:
            self.folder.keep(plan, resume=resume)
            self.left = unfinished(self.planned)
        except BaseException:
            self.folder.close()
            raise

    def __enter__(self) -> "OpenStudy":
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.close()

    def done(self, began: Began = lambda job, pid: None) -> Iterator[Done]:
        """Carry out what is left, the longest runs first."""
        start = time.perf_counter()
        for done in carry_out(self.left, self.plan.plan, self.plan.workers, began):
            self._seconds = time.perf_counter() - start
            yield done

    def summarise(self) -> dict[str, Any]:
        """Write `summary.json` and return what it holds; its seconds include those of an older one."""
        seconds = self._seconds + self.folder.read("summary.json").get("seconds", 0.0)
        summary = summarise(self.plan, self.planned, items_of(self.planned.jobs), seconds)
        self.folder.write("summary.json", summary)
        return summary


def carry_out(jobs: list[Job], plan: Plan, workers: int, began: Began) -> Iterator[Done]:
    """Have workers carry out the jobs, the longest first."""
    if not jobs:
        return
    starts = dict[PurePath, float]()

    def start(job: Job, pid: int) -> None:
        starts[job.place] = time.perf_counter()
        began(job, pid)

    ordered = sorted(jobs, key=lambda job: -job.samples)
    pool = Pool(min(workers, len(jobs)), _lent(plan), start)
    for job in pool.carry_out(ordered):
        scores = read_scores(job.folder)
        assert scores is not None
        yield Done(job, list(scores.items), time.perf_counter() - starts[job.place])


def unfinished(planned: Jobs) -> list[Job]:
    """The jobs without scores. Raises InputError where one was done with another plan or data."""
    return [job for job in planned.jobs if finished(job, planned.corpus) is None]


def items_of(jobs: list[Job]) -> dict[str, Scores]:
    """The scores of every job by its place; all are done."""
    found = {str(job.place): read_scores(job.folder) for job in jobs}
    return {place: scores for place, scores in found.items() if scores is not None}


def _lent(plan: Plan) -> Lent | None:
    """The base, loaded once for all workers; None where each loads its own (a GPU, a quantised base)."""
    if plan.model.quantise or pick_device(plan.model.device).type != "cpu":
        return None
    base, _ = make_base(plan)
    return lend(base)
