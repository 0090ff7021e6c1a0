"""Worker processes that carry out a study's runs on one base; one that is killed has its run resumed."""

from collections.abc import Callable, Iterator, Sequence

from fedit.engines.crew import Task
from fedit.engines.processes import Processes
from fedit.studies.jobs import Job
from fedit.studies.work import PRELOAD, Opening
from fedit.train.lending import Lent


class Pool:
    """At most `size` workers; `began` is told of every job and the process that does it."""

    def __init__(
        self,
        size: int,
        lent: Lent | None,
        began: Callable[[Job, int], None] = lambda job, pid: None,
    ):
        self._crew, self._began = Processes(size, Opening(lent), PRELOAD), began

    def carry_out(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Yield each job when its scores are on disk. Raises FeditError where one cannot be done."""
        tasks = [Task(str(job.place), job) for job in jobs]
        try:
            for task, _ in self._crew.carry_out(
                tasks, began=lambda task, pid: self._began(task.what, pid)
            ):
                yield task.what
        finally:
            self._crew.close()
