"""Processes of a network engine, started, started anew when they die, and ended with their parent."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_DEATH_SIGNAL, _SUBREAPER = 1, 36  # of prctl
_LOG = 16 * 2**20  # bytes of a log
_REST = 2.0  # seconds between two starts of a process that dies at once


class Child:
    """A command that shall always run; its output goes to a file, or to ours. Watch it from one thread."""

    def __init__(
        self, command: Sequence[str], folder: Path, log: Path | None, more: Mapping[str, str]
    ):
        self._command, self._folder, self._log = list(command), folder, log
        self._environment = {**os.environ, **more}
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self.starts = 0

    def watch(self) -> bool:
        """Start it where it does not run; whether that was so."""
        self._keep_log_small()
        if self.alive or time.monotonic() - self._began < _REST * bool(self.starts):
            return False
        self._end_orphans()
        with open(self._log, "ab") if self._log else contextlib.nullcontext() as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent
                preexec_fn=_die_with_the_parent,
            )
        self._began = time.monotonic()
        self.starts += 1
        return True

    def _keep_log_small(self) -> None:
        """Empty a log that has grown: a carrier writes a kilobyte a second where it finds no server."""
        with contextlib.suppress(OSError):
            if self._log and self._log.stat().st_size > _LOG:
                os.truncate(self._log, 0)  # whoever writes appends

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def end(self, seconds: float = 3.0) -> None:
        """End it and all that it has started."""
        if self._process is not None:
            found = [*_descendants(self._process.pid), *_named(self._command)]
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            _kill(found)
            self._process.kill()
            self._process.wait()
        self._end_orphans()

    def _end_orphans(self) -> None:
        """What an earlier one has left, of this kit alone."""
        _kill(_named(self._command))


def adopt_orphans() -> None:
    """Grandchildren whose parent dies become ours (Linux), so that they can be found and ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _die_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return found
    return []


def _named(command: Sequence[str]) -> list[psutil.Process]:
    """Processes of NVFlare or of ours that were started for the same folder: it stands in their command."""
    marks = {word for word in command if word.startswith("{") or Path(word, "startup").is_dir()}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            ours = any(word.startswith(("nvflare.private", "fedit.federation")) for word in words)
            if ours and marks & set(words) and process.pid != os.getpid():
                found.append(process)
    return found


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
