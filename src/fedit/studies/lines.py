"""The lines that tell how a study goes on: a run begun, a run done with its score, the time left."""

import time
from collections.abc import Callable

from fedit.evaluate.items import loss_of
from fedit.progress import clock
from fedit.studies.jobs import Job
from fedit.studies.study import Done, OpenStudy


class Lines:
    """Says what happens to each job of an opened study."""

    def __init__(self, opened: OpenStudy, say: Callable[[str], None]):
        self._say, self._opened, self._began = say, opened, time.monotonic()
        self._to_score = len(opened.planned.corpus.test)
        self._total = len(opened.planned.jobs)
        self._count = self._total - len(opened.left)
        self._left = sum(map(self._work, opened.left))
        self._did = 0
        for note in opened.planned.notes:
            say(f"note: {note}")
        say(
            f"{opened.plan.name}: {self._total} runs, {self._count} done before, "
            f"{min(opened.plan.workers, max(1, len(opened.left)))} at a time; {opened.folder.path}"
        )

    def began(self, job: Job, pid: int) -> None:
        """A worker has begun a job."""
        self._say(f"{self._name(job)}: began, {job.samples:,} samples")

    def done(self, done: Done) -> None:
        """A job is safe on disk: its score, and the time left at the pace so far."""
        items = done.items
        self._count += 1
        self._did += self._work(done.job)
        self._left -= self._work(done.job)
        passed = time.monotonic() - self._began
        em = sum(item.correct for item in items) / len(items)
        f1 = sum(item.f1 for item in items) / len(items)
        parts = [
            f"{self._name(done.job)}: EM {em:.1%}",
            f"F1 {f1:.1%}",
            f"loss {loss_of(items).mean:.3f}",
            clock(done.seconds),
            f"{self._count} of {self._total}",
        ]
        if self._left:
            parts.append(f"{clock(passed / self._did * self._left)} left")
        self._say(" · ".join(parts))

    def _work(self, job: Job) -> int:
        return job.samples + self._to_score

    def _name(self, job: Job) -> str:
        folder = self._opened.folder.path
        return str(job.folder.relative_to(folder))
