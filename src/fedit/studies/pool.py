"""Worker processes that share one base; one that is killed is replaced and its run resumed."""

import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

from torch import multiprocessing

from fedit.core.errors import FeditError, InputError
from fedit.studies.jobs import Job
from fedit.train.lending import Lent

LIVES = 3
"""Times a job is begun before the workers that die of it are no longer replaced."""


@dataclass
class Worker:
    """A process, the line to it and what it is at."""

    process: Any
    line: Connection
    job: Job | None = None


class Pool:
    """At most `size` workers; `began` is told of every job and the process that does it."""

    def __init__(
        self,
        size: int,
        lent: Lent | None,
        began: Callable[[Job, int], None] = lambda job, pid: None,
    ):
        self._size, self._lent, self._began = size, lent, began
        self._context: BaseContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["fedit.studies.work"])
        self._workers: list[Worker] = []

    def carry_out(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Yield each job when its scores are on disk. Raises FeditError where one cannot be done."""
        waiting, begun = deque(jobs), Counter[str]()
        try:
            while waiting or any(worker.job for worker in self._workers):
                while waiting and (worker := self._free()):
                    job = waiting.popleft()
                    begun[str(job.place)] += 1
                    if self._give(worker, job):
                        self._began(job, worker.process.pid)
                    else:
                        waiting.appendleft(self._bury(worker, begun))
                busy = {worker.line: worker for worker in self._workers if worker.job}
                for line in wait(list(busy)):
                    worker = busy[line]  # type: ignore[index]
                    assert worker.job is not None
                    try:
                        answer = worker.line.recv()
                    except (EOFError, OSError):
                        waiting.appendleft(self._bury(worker, begun))
                        continue
                    job, worker.job = worker.job, None
                    if answer is not None:
                        raise _error(job, *answer)
                    yield job
        finally:
            self.close()

    def close(self) -> None:
        """Stop every worker at once; what was finished is on disk."""
        for worker in self._workers:
            worker.line.close()  # one that has nothing to do ends by itself
            if worker.job is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(10)
            worker.process.kill()
            worker.process.join()
        self._workers.clear()

    def _free(self) -> Worker | None:
        for worker in self._workers:
            if worker.job is None:
                return worker
        if len(self._workers) == self._size:
            return None
        from fedit.studies.work import serve

        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._lent), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._workers.append(Worker(process, ours))
        return self._workers[-1]

    def _give(self, worker: Worker, job: Job) -> bool:
        worker.job = job
        try:
            worker.line.send(job)
        except OSError:
            return False
        return True

    def _bury(self, worker: Worker, begun: Counter[str]) -> Job:
        """Forget a dead worker; its job, to be done again unless it has cost too many."""
        worker.process.join()
        worker.line.close()
        self._workers.remove(worker)
        job, code = worker.job, worker.process.exitcode
        assert job is not None
        if begun[str(job.place)] >= LIVES:
            died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise FeditError(
                f"{job.place}: {LIVES} workers died of it, the last with {died}; if memory ran out, lower "
                "workers or local.micro_batch and evaluation.batch, then resume"
            )
        return job


def _error(job: Job, code: int | None, message: str) -> FeditError:
    if code is None:  # a defect of ours: all there is to know
        raise RuntimeError(f"{job.place}: {message}")
    kind = InputError if code == InputError.exit_code else FeditError
    return kind(f"{job.place}: {message}")
