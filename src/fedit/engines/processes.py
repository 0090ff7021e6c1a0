"""Worker processes of one thread: started, given tasks, replaced when they die, ended with their parent."""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import forkserver, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

from torch import multiprocessing

from fedit.engines.crew import Crew, Died, Do, Duty, Result, Worker


class Process(Worker):
    """A process and the line to it."""

    def __init__(self, process: Any, line: Connection):
        self.process, self.line = process, line

    @property
    def pid(self) -> int:
        found: int = self.process.pid
        return found

    def send(self, news: Any, what: Any) -> None:
        try:
            self.line.send((news, what))
        except OSError:
            raise self._death() from None

    def receive(self) -> Result:
        try:
            found: Result = self.line.recv()
            return found
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> Died:
        self.process.join()
        self.line.close()
        code = self.process.exitcode
        return Died(signal.Signals(-code).name if code < 0 else f"exit code {code}")


class Processes(Crew):
    """At most `size` processes, each of which calls `opened` once.

    `opened` and what passes over the line are pickled, between processes of our own only. `preload` names
    modules that are imported once, before workers are forked, so that all share them in memory.
    """

    def __init__(self, size: int, opened: Callable[[], Do], preload: Sequence[str] = ()):
        super().__init__()
        self._size, self._opened = size, opened
        self._context: BaseContext = multiprocessing.get_context("forkserver")
        warm_up(preload)

    def _free(self, wanted: int) -> Worker | None:
        for worker in self._workers:
            if worker.task is None:
                found: Worker = worker
                return found
        if len(self._workers) == self._size:
            return None
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._opened), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        worker = Process(process, ours)
        self._workers.append(worker)
        return worker

    def _wait(self, busy: Sequence[Process]) -> Iterable[Worker]:
        lines = {worker.line: worker for worker in busy}
        return [lines[line] for line in wait(list(lines))]  # type: ignore[index]

    def _end(self, workers: Sequence[Process]) -> None:
        for worker in workers:
            worker.line.close()  # one that has nothing to do ends by itself
            if worker.task is not None:
                worker.process.terminate()
        for worker in workers:
            worker.process.join(10)
            worker.process.kill()
            worker.process.join()
            self._workers.remove(worker)


def warm_up(preload: Sequence[str]) -> None:
    """Start the process that workers are forked from, which imports these modules meanwhile."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, *preload])
    forkserver.ensure_running()


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serve(line: Connection, opened: Callable[[], Do]) -> None:
    """A worker's life: one task after another, until the parent closes the line."""
    gc.freeze()  # the collector would write to inherited objects, and so copy their pages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its workers
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    duty = Duty(opened, threads=1)
    while True:
        try:
            line.send(duty(*line.recv()))
        except (EOFError, OSError):  # the parent has closed the line
            return


def _die_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
