"""A crew of workers, whatever they are: tasks handed out as hands come free, done again where one dies."""

import traceback
import warnings
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging

from fedit.core.errors import BrokenInvariant, FeditError, InputError

LIVES = 3
"""Times a task is begun before the workers that die of it are no longer replaced."""

_KINDS = {kind.__name__: kind for kind in (InputError, BrokenInvariant, FeditError, OSError)}

Do = Callable[[Any], Any]
"""What an opened worker does with a task."""

Result = tuple[str, Any]
"""("", what came of a task), or the kind of an error and its text."""


@dataclass(frozen=True)
class Task:
    """What a worker is sent, and the name under which messages speak of it."""

    name: str
    what: Any


class Died(Exception):
    """A worker is no more; the text says of what."""


class Worker(ABC):
    """One of a crew: what it is at, and whether it has heard what all shall hear."""

    task: Task | None = None
    told: bool = False

    @property
    def pid(self) -> int:
        """Its process here; 0 where it may be on another machine."""
        return 0

    @abstractmethod
    def send(self, news: Any, what: Any) -> None:
        """Have it do a task. Raises Died."""

    @abstractmethod
    def receive(self) -> Result:
        """What came of the task, once it is done. Raises Died."""


class Crew(ABC):
    """Workers, each of which opens once and does one task after another; a transport fills the last four."""

    def __init__(self) -> None:
        self._workers: list[Any] = []

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
        news = self._begin(news)
        for worker in self._workers:
            worker.told = False
        try:
            while waiting or self._busy():
                self._hand_out(waiting, begun, news, began)
                for worker in self._wait(self._busy()):
                    try:
                        kind, answer = worker.receive()
                    except Died as death:
                        waiting.appendleft(self._bury(worker, begun, death))
                        continue
                    task, worker.task = worker.task, None
                    assert task is not None
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
        while waiting and (worker := self._free(len(waiting))):
            worker.task = task = waiting.popleft()
            begun[task.name] += 1
            try:
                worker.send(None if worker.told else news, task.what)
            except Died as death:
                waiting.appendleft(self._bury(worker, begun, death))
                continue
            worker.told = True
            began(task, worker.pid)

    def _busy(self) -> list[Any]:
        return [worker for worker in self._workers if worker.task]

    def _bury(self, worker: Worker, begun: Counter[str], death: Died) -> Task:
        """Forget a dead worker; its task, to be done again unless it has cost too many."""
        self._workers.remove(worker)
        task = worker.task
        assert task is not None
        if begun[task.name] >= LIVES:
            raise FeditError(
                f"{task.name}: {LIVES} workers died of it, the last with {death}; if memory ran out, lower "
                "the number of workers, local.micro_batch or evaluation.batch, then resume"
            )
        return task

    def _begin(self, news: Any) -> Any:
        """Get ready for tasks; the news, in the form in which workers are sent them."""
        return news

    @abstractmethod
    def _free(self, wanted: int) -> Worker | None:
        """A worker with nothing to do, a new one where there is room; `wanted` would find work."""

    @abstractmethod
    def _wait(self, busy: Sequence[Any]) -> Iterable[Worker]:
        """Wait until something happens; those of the busy that have answered or died."""

    @abstractmethod
    def _end(self, workers: Sequence[Any]) -> None:
        """End these workers, whatever they are at, and forget them."""


class Duty:
    """A worker's side: opens with the first task, then answers each one with a `Result`."""

    def __init__(self, opened: Callable[[], Do], threads: int):
        torch.set_num_threads(threads)
        warnings.simplefilter(
            "ignore"
        )  # what libraries say of themselves would stand among the lines
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self._opened = opened
        self._found: Result | None = None

    def __call__(self, news: Any, what: Any) -> Result:
        """Do one task; the fault of one that could not be opened is its answer to every task."""
        self._found = self._found or _attempt(self._opened)
        fault, do = self._found
        return (fault, do) if fault else _attempt(do, (news, what))


def _attempt(do: Callable[..., Any], *given: Any) -> Result:
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
