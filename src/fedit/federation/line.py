"""The server's line to its sites: NVFlare's server and one job after another, mended whenever they break."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedit.core.errors import FeditError, InputError, brief
from fedit.engines.frames import SOCKET, place_of
from fedit.engines.line import Line, News, Tell
from fedit.federation.bench import Bench
from fedit.federation.children import Child, adopt_orphans
from fedit.federation.door import Door
from fedit.federation.kit import DOOR, Kit
from fedit.files import lock_folder

if TYPE_CHECKING:
    from fedit.engines.nvflare.control import Control

_LOOK = 0.5  # seconds between two looks at who is connected
_FREED = 5.0  # seconds in which what a killed server left lets go of the port
_STUCK = 90.0  # seconds after which a job that has not called is given up
_SURE = 3  # looks in a row at which a site must have no job
_SHORT, _REST = 20.0, 30.0  # a job of fewer seconds has failed; the longest rest before another
_SETTLED = (
    5.0  # seconds without a new site before a job begins, unless all are there; above a pulse
)


@contextmanager
def carrying(kit: Kit, tell: Tell, own: bool = True) -> Iterator[Line]:
    """The line of a server's kit, which no other process may use meanwhile. Raises InputError.

    Without a carrier of its `own` it waits for a job that somebody submits to an NVFlare that runs already.
    """
    from fedit.engines.nvflare.kits import write_job

    with lock_folder(kit.folder, "kit"):
        adopt_orphans()
        path = place_of(kit.folder, DOOR)
        job = write_job(kit.folder / "job")
        if own:
            _check_port(kit)
        else:
            tell("server", f"waits for the job {job}; NVFlare's server needs {SOCKET}={path}")
        door = Door(path)
        line: Line = NvflareLine(kit, door, tell) if own else door
        try:
            yield line
        finally:
            line.close()


def _check_port(kit: Kit) -> None:
    """Refuse a port that another program has. Raises InputError."""
    port = int(kit.address.rpartition(":")[2])
    until = time.monotonic() + _FREED
    while True:
        with socket.socket() as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                found.bind(("", port))
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise InputError(
                        f"port {port} of the kit: {error.strerror}; end the program that has it, or "
                        "provision with another port"
                    ) from None
        time.sleep(_LOOK)


class NvflareLine:
    """Keeps NVFlare's server running and a job in it, in which all sites are that are connected.

    A job that breaks, or from which a site is missing that has come back, is followed by another; what was
    on its way is then told to be lost.
    """

    def __init__(self, kit: Kit, door: Door, tell: Tell = lambda site, what: None):
        from fedit.engines.nvflare.control import Control, server_command
        from fedit.engines.nvflare.kits import settle_server

        self._kit, self._door, self._tell = kit, door, tell
        self._connected: dict[str, float] = {}
        self._idle: dict[str, int] = {}  # how many looks in a row a site had no job
        self._members, self._bench = set[str](), Bench()
        self._closing = threading.Event()
        settle_server(kit.carrier, kit.revoked)
        self._log = kit.folder / "carrier.log"
        self._child = Child(
            server_command(kit.carrier),
            kit.carrier,
            self._log,
            {SOCKET: str(place_of(kit.folder, DOOR))},
        )
        self._control = Control(kit.folder / "driver")
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def present(self) -> frozenset[str]:
        """The sites in the running job that are connected."""
        return self._door.present() & self._connected.keys()

    def post(self, site: str, number: int, message: bytes, seconds: float) -> None:
        """Hand a message to the job."""
        self._door.post(site, number, message, seconds)

    def next(self, seconds: float) -> News | None:
        """The next news within so many seconds."""
        return self._door.next(seconds)

    def close(self) -> None:
        """End the job and NVFlare's server; the sites wait for the next."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._door.close()
        self._keeper.join(15)

    def _keep(self) -> None:
        """Watch over the server process and the job, in the thread that has started the process."""
        from fedit.engines.nvflare.kits import write_job

        job, submitted, changed, short = "", 0.0, time.monotonic(), 0
        while not self._closing.wait(_LOOK):
            try:
                if self._child.watch() and self._child.starts > 1:
                    self._tell("server", "the carrier had died and is started anew")
                    self._control.close()
                    job = ""
                if self._see(self._control):
                    changed = time.monotonic()
                if job and self._over(self._control, job, submitted):
                    self._door.drop("the carrier's job was replaced")
                    job = ""
                    short = short + 1 if time.monotonic() - submitted < _SHORT else 0
                    if short > 1:
                        self._tell("server", f"{short} jobs ended at once; see {self._log}")
                self._blame(self._door.failed())
                fit = self._connected.keys() - self._bench.resting()
                settled = len(fit) == len(self._kit.sites)
                settled |= time.monotonic() - changed > _SETTLED
                rested = time.monotonic() - submitted > min(_REST, 2.0**short) * bool(short)
                if not job and fit and settled and rested:
                    job = self._control.submit(write_job(self._kit.folder / "job", sorted(fit)))
                    submitted, self._members, self._idle = time.monotonic(), set(fit), {}
            except FeditError:
                continue  # it is starting, or has died: the next look tells
            except Exception as error:  # a full disk, too little memory: it may pass
                self._tell("server", f"the carrier cannot be kept running: {brief(error)}")
                self._closing.wait(_REST)
        self._control.close()
        self._child.end()

    def _see(self, control: "Control") -> bool:
        """Look who is connected; whether somebody has come."""
        before, self._connected = self._connected, control.connected()
        for site in self._connected.keys() - before.keys():
            self._tell(site, "connected")
        for site in before.keys() - self._connected.keys():
            self._tell(site, "gone")
        return bool(self._connected.keys() - before.keys())

    def _over(self, control: "Control", job: str, submitted: float) -> bool:
        """Whether a job is to be followed by another: it has ended, never called, or lacks a site."""
        if control.ended(job):
            return True
        called = self._door.called()
        if called:  # a site whose process was replaced is connected, and knows of no job
            idle = self._connected.keys() - self._bench.resting() - control.working(job)
            self._idle = {site: self._idle.get(site, 0) + 1 for site in idle}
        if max(self._idle.values(), default=0) >= _SURE or (
            not called and time.monotonic() - submitted > _STUCK
        ):
            control.abort(job)
            self._blame({site for site, looks in self._idle.items() if looks >= _SURE})
            self._idle = {}
            return True
        return False

    def _blame(self, missing: set[str]) -> None:
        """Who was to be in a job and was not may have broken it; who came since is not to blame."""
        if missing >= self._members > set():
            self._tell(
                "server", f"no site is in the carrier's job; see {self._log} and the sites' own"
            )
        for site, rest in self._bench.judge(missing, self._members).items():
            if rest:
                self._tell(site, f"its carrier breaks jobs: left out for {rest:.0f} s; see its log")
