"""The server's line to its sites: NVFlare's server and one job after another, mended whenever they break."""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedit.core.errors import FeditError
from fedit.engines.frames import SOCKET, Hung, listen, place_of, receive, send
from fedit.engines.line import News
from fedit.federation.children import Child, adopt_orphans
from fedit.federation.kit import Kit
from fedit.files import lock_folder

if TYPE_CHECKING:
    from fedit.engines.nvflare.control import Control

_LOOK = 0.5  # seconds between two looks at who is connected
_STUCK = 60.0  # seconds after which a job that has not called is given up
_SURE = 3  # looks in a row at which a site must have no job
_SETTLED = 1.5  # seconds without a new site before a job begins, unless all are there


@contextmanager
def carrying(kit: Kit, tell: Callable[[str, str], None]) -> Iterator["NvflareLine"]:
    """The line of a server's kit, which no other process may use meanwhile. Raises InputError."""
    with lock_folder(kit.folder, "kit"):
        adopt_orphans()
        line = NvflareLine(kit, tell)
        try:
            yield line
        finally:
            line.close()


class NvflareLine:
    """Keeps NVFlare's server running and a job in it, in which all sites are that are connected.

    A job that breaks, or from which a site is missing that has come back, is followed by another; what was
    on its way is then told to be lost.
    """

    def __init__(self, kit: Kit, tell: Callable[[str, str], None] = lambda site, what: None):
        from fedit.engines.nvflare.control import Control, server_command
        from fedit.engines.nvflare.kits import settle_server, write_job

        self._kit, self._tell = kit, tell
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._relay: socket.socket | None = None
        self._sites = frozenset[str]()
        self._connected: dict[str, float] = {}
        self._open: dict[int, str] = {}  # what is on its way, by number
        self._idle: dict[str, int] = {}  # how many looks in a row a site had no job
        self._closing = threading.Event()
        settle_server(kit.carrier, kit.revoked)
        self._door_path = place_of(kit.folder, "relay")
        self._door = listen(self._door_path)
        self._child = Child(
            server_command(kit.carrier),
            kit.carrier,
            kit.folder / "carrier.log",
            {SOCKET: str(self._door_path)},
        )
        self._control = Control(kit.folder / "driver")
        self._job_folder = write_job(kit.folder / "job")
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        threading.Thread(target=self._answer_calls, daemon=True).start()

    def present(self) -> frozenset[str]:
        """The sites in the running job that are connected."""
        with self._lock:
            return self._sites & self._connected.keys() if self._relay else frozenset()

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

    def close(self) -> None:
        """End the job and NVFlare's server; the sites wait for the next."""
        if self._closing.is_set():
            return
        self._closing.set()
        with self._lock:
            relay, self._relay = self._relay, None
        if relay:
            relay.close()
        self._keeper.join(15)
        self._door.close()
        self._door_path.unlink(missing_ok=True)

    def _keep(self) -> None:
        """Watch over the server process and the job, in the thread that has started the process."""
        job, submitted, changed = "", 0.0, time.monotonic()
        while not self._closing.wait(_LOOK):
            if self._child.watch() and self._child.starts > 1:
                self._tell("server", "the carrier had died and is started anew")
                self._control.close()
                job = ""
            try:
                if self._see(self._control):
                    changed = time.monotonic()
                if job and self._over(self._control, job, submitted):
                    self._drop()
                    job = ""
                settled = len(self._connected) == len(self._kit.sites)
                settled |= time.monotonic() - changed > _SETTLED
                if not job and self._connected and settled:
                    job, submitted = self._control.submit(self._job_folder), time.monotonic()
            except FeditError:
                continue  # it is starting, or has died: the next look tells
        self._control.close()
        self._child.end()

    def _see(self, control: "Control") -> bool:
        """Look who is connected; whether somebody has come."""
        seen = control.connected()
        with self._lock:
            before, self._connected = self._connected, seen
        for site in seen.keys() - before.keys():
            self._tell(site, "connected")
        for site in before.keys() - seen.keys():
            self._tell(site, "gone")
        return bool(seen.keys() - before.keys())

    def _over(self, control: "Control", job: str, submitted: float) -> bool:
        """Whether a job is to be followed by another: it has ended, never called, or lacks a site."""
        if control.ended(job):
            return True
        with self._lock:
            called = self._relay is not None
            there = set(self._connected)
        if called:  # a site whose process was replaced is connected, and knows of no job
            idle = there - control.working(job)
            self._idle = {site: self._idle.get(site, 0) + 1 for site in idle}
        if max(self._idle.values(), default=0) >= _SURE or (
            not called and time.monotonic() - submitted > _STUCK
        ):
            control.abort(job)
            self._idle = {}
            return True
        return False

    def _answer_calls(self) -> None:
        """Take the relay of each new job, and read what it says until it hangs up."""
        while not self._closing.is_set():
            try:
                relay, _ = self._door.accept()
                _, *sites = receive(relay)
            except Hung:
                continue
            except OSError:  # the door is closed
                return
            with self._lock:
                self._relay, self._sites = relay, frozenset(site.decode() for site in sites)
            self._listen(relay)
            with self._lock:
                if self._relay is relay:
                    self._relay = None
            relay.close()
            self._drop("the carrier's job has ended")

    def _listen(self, relay: socket.socket) -> None:
        try:
            while True:
                what, number, site, content = receive(relay)
                mine = int(number)
                with self._lock:
                    known = self._open.pop(mine, None)
                if known == site.decode():
                    good = what == b"answer"
                    worker = not good and b"Hung" in content
                    why = "its worker broke off" if worker else "its line broke"
                    self._news.put(News(known, mine, content if good else None, why, worker))
        except (Hung, ValueError):
            return

    def _drop(self, why: str = "the carrier's job was replaced") -> None:
        """Tell of everything that was on its way that it is lost."""
        with self._lock:
            relay, self._relay = self._relay, None
            numbers = list(self._open)
        if relay:
            relay.close()
        for number in numbers:
            self._lose(number, why)

    def _lose(self, number: int, why: str) -> None:
        with self._lock:
            site = self._open.pop(number, None)
        if site is not None:
            self._news.put(News(site, number, None, why))
