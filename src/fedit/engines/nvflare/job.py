"""The two ends of an NVFlare job, through its Collab API: they carry messages and know no model.

The one on the server relays between our server and the sites; the one at a site hands what comes to the
site's own worker. Both may die and be replaced within a round.
"""

import contextlib
import gc
import os
import socket
import sys
import threading
import time
from typing import Any

from nvflare.collab import collab
from nvflare.collab.runtime.controller import CollabController

from fedit.engines.frames import SOCKET, Hung, call, receive, send

PATIENCE = 20.0
"""Seconds that a site's job waits for the worker, which may just be started anew."""


def _bytes_only() -> None:
    """Keep NVFlare from loading torch, for seconds, into a process that only carries bytes."""
    sys.modules.setdefault("nvflare.app_opt.pt.decomposers", None)  # type: ignore[arg-type]


class Conductor(CollabController):  # type: ignore[misc]
    """NVFlare's controller, which gives a job up where one site fails; it tells our server which."""

    def system_panic(self, reason: str, fl_ctx: Any) -> None:
        """Tell who has not begun, then give up."""
        begun = self.client_setup_status if all(self.client_info.values()) else self.client_info
        with contextlib.suppress(OSError, Hung), contextlib.closing(_door()) as line:
            send(line, b"failed", *(name.encode() for name, good in begun.items() if not good))
        super().system_panic(reason, fl_ctx)


def _door() -> socket.socket:
    return call(os.environ[SOCKET])


class Relay:
    """The server's side of a job: carries messages between our server's socket and the sites."""

    def __init__(self) -> None:
        _bytes_only()

    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """Say which sites are there; then pass on whatever comes, until our server hangs up."""
        line = _door()
        speaking = threading.Lock()

        def say(*parts: bytes) -> None:
            with speaking:
                send(line, *parts)

        say(b"sites", *(proxy.name.encode() for proxy in collab.clients))
        try:
            while not collab.is_aborted:
                number, site, seconds, message = receive(line)
                asked = collab.get_clients([site.decode()])
                results = asked(blocking=False, timeout=float(seconds)).deliver(message)
                pump = (say, number, site, results)
                threading.Thread(target=_pump, args=pump, daemon=True).start()
        except Hung:
            return
        finally:
            line.close()


def _pump(say: Any, number: bytes, site: bytes, results: Any) -> None:
    """Wait for a site's answer, and pass it on."""
    answer = next((found for _, found in results), None)
    try:
        if type(answer) is not bytes:  # a site's process may answer anything that NVFlare can carry
            why = str(next(iter(dict(results.failures).values()), "no bytes"))
            say(b"lost", number, site, why.encode())
        else:
            say(b"answer", number, site, answer)
    except Hung:
        return
    del answer
    gc.collect()  # large payloads stay in cycles otherwise


class Post:
    """A site's side of a job: hands messages to the site's worker and gives back what it says."""

    def __init__(self) -> None:
        _bytes_only()

    @collab.publish  # type: ignore[untyped-decorator]
    def deliver(self, message: bytes) -> bytes:
        """What the worker answers; waits for one that is just being started."""
        line = _worker()
        try:
            send(line, message)
            (answer,) = receive(line)
            return answer
        finally:
            line.close()
            gc.collect()


def _worker() -> socket.socket:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return call(os.environ[SOCKET])
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
