"""Several functions side by side, one at a time, that wait for each other wherever they ask something."""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Q = TypeVar("Q")
"""What is asked."""

R = TypeVar("R")
"""What is answered."""

T = TypeVar("T")


class Lockstep(Generic[Q, R]):
    """Answers the questions of all functions together, once each of them has asked or is done.

    `carry_out` gets the questions in the order of the functions and gives an answer to each, or the error
    to raise where it was asked. Each function has a thread, so that it may ask from any depth, yet only
    one runs at a time and always in the same order: nothing hangs on who is faster.
    """

    def __init__(self, carry_out: Callable[[Sequence[Q]], Sequence[R | Exception]]):
        self._carry_out = carry_out
        self._here = threading.local()

    def ask(self, question: Q) -> R:
        """The answer, after a wait for the others; at once outside of `run`."""
        line: _Line | None = getattr(self._here, "line", None)
        answer = line.ask(question) if line else self._carry_out([question])[0]
        if isinstance(answer, BaseException):
            raise answer
        found: R = answer
        return found

    def run(self, parts: Sequence[Callable[[], T]]) -> list[T]:
        """What the functions return; what one of them raises ends the others where they wait."""
        if len(parts) == 1:
            return [parts[0]()]
        lines = [_Line(part, self._here) for part in parts]
        try:
            waiting = [line for line in lines if line.goes_on(None)]
            while waiting:
                answers = self._carry_out([line.question for line in waiting])
                pairs = list(zip(waiting, answers, strict=True))
                waiting = [line for line, answer in pairs if line.goes_on(answer)]
            return [line.found for line in lines]
        finally:
            for line in lines:
                line.end()


class _End(BaseException):
    """Nobody waits for this function any more."""


class _Line:
    """A function in a thread of its own, which stands still unless `goes_on` waits for it."""

    def __init__(self, part: Callable[[], Any], here: threading.local):
        self._part, self._here = part, here
        self._in, self._out = SimpleQueue[Any](), SimpleQueue[bool]()
        self._error: BaseException | None = None
        self._ended = False
        self.question: Any = None
        self.found: Any = None
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def goes_on(self, answer: Any) -> bool:
        """Let it run with an answer: whether it has asked again. Raises what it raised."""
        self._in.put(answer)
        asked = self._out.get()
        if self._error is not None:
            raise self._error
        return asked

    def ask(self, question: Any) -> Any:
        """In its own thread: the answer to a question."""
        if not self._ended:
            self.question = question
            self._out.put(True)
        return self._wait()

    def end(self) -> None:
        """Unwind what is left of it."""
        self._ended = True
        self._in.put(None)
        self._thread.join()

    def _wait(self) -> Any:
        answer = None if self._ended else self._in.get()
        if self._ended:
            raise _End
        return answer

    def _live(self) -> None:
        self._here.line = self
        try:
            self._wait()
            self.found = self._part()
        except BaseException as error:
            self._error = error
        self._out.put(False)
