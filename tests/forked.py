"""`fedit` in a fork of this process, in which all libraries are loaded: what signals do to it, at once."""

import os
import signal
import sys
from pathlib import Path

from fedit.cli import main


class Forked:
    """A running `fedit WORDS`, whose messages go to a file."""

    def __init__(self, log: Path, *words: str):
        self._log, self.returncode = log, None
        self.pid = os.fork()
        if self.pid == 0:
            self._become(words)

    def _become(self, words: tuple[str, ...]) -> None:
        code = 70
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            opened = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for out in (1, 2):
                os.dup2(opened, out)
            sys.stdout, sys.stderr = (os.fdopen(os.dup(1), "w", 1) for _ in range(2))
            sys.argv = ["fedit", *words]
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def said(self) -> str:
        return self._log.read_text()
