"""Worker processes of one thread: started, given tasks, replaced when they die, ended with their parent."""

import gc
import os
import signal
import threading
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch import multiprocessing
from transformers.utils import logging

from fedit.core.errors import BrokenInvariant, FeditError, InputError

LIVES = 3
"""Times a task is begun before the workers that die of it are no longer replaced."""

_KINDS = {kind.__name__: kind for kind in (InputError, BrokenInvariant, FeditError)}

Do = Callable[[Any], Any]
"""What an opened worker does with a task."""


@dataclass(frozen=True)
class Task:
    """What a worker is sent, and the name under which messages speak of it."""

    name: str
    what: Any


@dataclass
class Worker:
    """A process, the line to it, what it is at, and whether it has heard what all shall hear."""

    process: Any
    line: Connection
    task: Task | None = None
    told: bool = False


class Crew:
    """At most `size` workers, each of which calls `opened` once and does one task after another.

    `opened` and what passes over the line are pickled, between processes of our own only. `preload` names
    modules that are imported once, before workers are forked, so that all share them in memory.
    """

    def __init__(self, size: int, opened: Callable[[], Do], preload: Sequence[str] = ()):
        self._size, self._opened = size, opened
        self._context: BaseContext = multiprocessing.get_context("forkserver")
        warm_up(preload)
        self._workers: list[Worker] = []

    def carry_out(
        self,
        tasks: Iterable[Task],
        news: Any = None,
        began: Callable[[Task, int], None] = lambda task, pid: None,
    ) -> Iterator[tuple[Task, Any]]:
        """Yield each task with what came of it, as they are done.

        A worker is sent (news or None, task.what): `news` comes with its first task of this call. A task
        whose worker dies is done again by another. Raises FeditError where a task cannot be done, of the
        kind that its worker met with, and RuntimeError with the worker's traceback where that is a defect.
        """
        waiting, begun = deque(tasks), Counter[str]()
        for worker in self._workers:
            worker.told = False
        try:
            while waiting or self._busy():
                self._hand_out(waiting, begun, news, began)
                busy = {worker.line: worker for worker in self._busy()}
                for line in wait(list(busy)):
                    worker = busy[line]  # type: ignore[index]
                    assert worker.task is not None
                    try:
                        kind, answer = worker.line.recv()
                    except (EOFError, OSError):
                        waiting.appendleft(self._bury(worker, begun))
                        continue
                    task, worker.task = worker.task, None
                    if kind:
                        raise _error(task, kind, answer)
                    self._hand_out(waiting, begun, news, began)
                    yield task, answer
        finally:
            self._end(self._busy())  # what they are at, nobody waits for any more

    def close(self) -> None:
        """End every worker at once."""
        self._end(list(self._workers))

    def _hand_out(
        self,
        waiting: deque[Task],
        begun: Counter[str],
        news: Any,
        began: Callable[[Task, int], None],
    ) -> None:
        while waiting and (worker := self._free()):
            worker.task = waiting.popleft()
            begun[worker.task.name] += 1
            try:
                worker.line.send((None if worker.told else news, worker.task.what))
            except OSError:
                waiting.appendleft(self._bury(worker, begun))
                continue
            worker.told = True
            began(worker.task, worker.process.pid)

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.task]

    def _free(self) -> Worker | None:
        for worker in self._workers:
            if worker.task is None:
                return worker
        if len(self._workers) == self._size:
            return None
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._opened), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._workers.append(Worker(process, ours))
        return self._workers[-1]

    def _bury(self, worker: Worker, begun: Counter[str]) -> Task:
        """Forget a dead worker; its task, to be done again unless it has cost too many."""
        worker.process.join()
        worker.line.close()
        self._workers.remove(worker)
        task, code = worker.task, worker.process.exitcode
        assert task is not None
        if begun[task.name] >= LIVES:
            died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise FeditError(
                f"{task.name}: {LIVES} workers died of it, the last with {died}; if memory ran out, lower "
                "the number of workers, local.micro_batch or evaluation.batch, then resume"
            )
        return task

    def _end(self, workers: Sequence[Worker]) -> None:
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
    """A worker's life: open, then answer each task with ("", result), or with an error's kind and text."""
    gc.freeze()  # the collector would write to inherited objects, and so copy their pages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its workers
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what libraries say of themselves would stand among the lines
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    fault, do = _attempt(opened)
    while True:
        try:
            task = line.recv()
            line.send((fault, do) if fault else _attempt(do, task))
        except (EOFError, OSError):  # the parent has closed the line
            return


def _attempt(do: Callable[..., Any], *given: Any) -> tuple[str, Any]:
    try:
        return "", do(*given)
    except Exception as error:
        for name, kind in _KINDS.items():
            if isinstance(error, kind):
                return name, str(error)
        return "defect", traceback.format_exc()


def _error(task: Task, kind: str, text: str) -> Exception:
    known = _KINDS.get(kind, RuntimeError)  # a defect of ours comes with all there is to know
    return known(f"{task.name}: {text}")


def _die_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
