"""The server's door: a local socket at which the carrier's job calls, one job after another."""

import queue
import socket
import threading
from pathlib import Path

from fedit.core.errors import quoted
from fedit.engines.frames import Hung, hang_up, leave, listen, receive, send
from fedit.engines.line import News


class Door:
    """The line to the sites of whatever job has called; when it hangs up, what was on its way is lost."""

    def __init__(self, path: Path):
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._relay: socket.socket | None = None
        self._sites, self._failed = frozenset[str](), set[str]()
        self._open: dict[int, str] = {}  # what is on its way, by number
        self._path, self._door = path, listen(path)
        self._closed = threading.Event()
        threading.Thread(target=self._answer_calls, daemon=True).start()

    def called(self) -> bool:
        """Whether a job is at the door."""
        with self._lock:
            return self._relay is not None

    def present(self) -> frozenset[str]:
        """The sites in the job that has called."""
        with self._lock:
            return self._sites if self._relay else frozenset()

    def failed(self) -> set[str]:
        """The sites for whose sake jobs could not begin since the last look."""
        with self._lock:
            found, self._failed = self._failed, set()
        return found

    def post(self, site: str, number: int, message: bytes, seconds: float) -> None:
        """Hand a message to the job."""
        with self._lock:
            relay = self._relay
            self._open[number] = site
        try:
            if relay is None:
                raise Hung("no job is running")
            send(relay, str(number).encode(), site.encode(), f"{seconds:.3f}".encode(), message)
        except Hung as error:
            with self._lock:
                if self._relay is relay:
                    self._relay = None
            self._lose(number, str(error))

    def next(self, seconds: float) -> News | None:
        """The next news within so many seconds."""
        try:
            return self._news.get(timeout=seconds)
        except queue.Empty:
            return None

    def drop(self, why: str) -> None:
        """Hang up, and tell of everything that was on its way that it is lost."""
        with self._lock:
            relay, self._relay = self._relay, None
            numbers = list(self._open)
        if relay:
            hang_up(relay)
        for number in numbers:
            self._lose(number, why)

    def close(self) -> None:
        """Hang up for good."""
        self._closed.set()
        with self._lock:
            relay, self._relay = self._relay, None
        if relay:
            hang_up(relay)
        self._door.close()
        leave(self._path)

    def _answer_calls(self) -> None:
        """Take the relay of each new job, and read what it says until it hangs up."""
        while not self._closed.is_set():
            try:
                relay, _ = self._door.accept()
                what, *names = receive(relay)
            except Hung:
                continue
            except OSError:  # the door is closed
                return
            sites = frozenset(name.decode() for name in names)
            if what == b"failed":
                relay.close()
                with self._lock:
                    self._failed |= sites
                continue
            with self._lock:
                self._relay, self._sites = relay, sites
            self._listen(relay)
            with self._lock:
                if self._relay is relay:
                    self._relay = None
            relay.close()
            self.drop("the carrier's job has ended")

    def _listen(self, relay: socket.socket) -> None:
        try:
            while True:
                what, number, site, content = receive(relay)
                mine = int(number)
                with self._lock:
                    asked = self._open.get(mine) == site.decode()
                    if asked:
                        del self._open[mine]
                if asked:
                    self._news.put(_news(site.decode(), mine, what == b"answer", content))
        except (Hung, ValueError):
            return

    def _lose(self, number: int, why: str) -> None:
        with self._lock:
            site = self._open.pop(number, None)
        if site is not None:
            self._news.put(News(site, number, None, why))


def _news(site: str, number: int, good: bool, content: bytes) -> News:
    if good:
        return News(site, number, content)
    if b"Hung" in content:
        return News(site, number, None, "its worker broke off", worker=True)
    said = quoted(content[:200].decode(errors="replace"), 200)
    return News(site, number, None, f"its line broke: {said}")
