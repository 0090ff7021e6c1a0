"""A site: its worker and its carrier kept running, so that no fault needs a person."""

import glob
import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedit.config import Site
from fedit.core.errors import InputError
from fedit.data.sources import checked, read_source
from fedit.engines.frames import SOCKET, leave, place_of
from fedit.federation.children import Child, adopt_orphans
from fedit.federation.kit import POLICY, TAKEN, WORKER, Kit, open_kit
from fedit.files import lock_folder

_LOOK = 0.2  # seconds between two looks at the processes
_QUIET = 60.0  # seconds without an invitation before it is told, doubled each time


def join(folder: Path, data: str, site: Site, own: bool = True) -> Iterator[str]:
    """Take part until the caller stops; yields what a person may want to know. Raises InputError.

    Without a carrier of its `own` an NVFlare that runs already must know the worker's socket.
    """
    from fedit.engines.nvflare.control import client_command

    kit = open_kit(folder, "site")
    kit.policy()  # refused before anything is begun
    data = _from_anywhere(data)
    try:
        source = read_source(data, mapping=site.columns)
    except InputError as error:  # of a plan's section, which is this site's own key here
        raise InputError(str(error).replace("data.columns", "columns")) from None
    notes, rows = checked(source, site.bad_rows, "bad_rows"), len(source.examples)
    if site.base is not None:
        if not Path(site.base).is_dir():
            raise InputError(f"base {site.base}: is no folder; give that of a model, or drop it")
        site = site.model_copy(update={"base": str(Path(site.base).absolute())})
    with lock_folder(kit.folder, "kit"):
        until = kit.expires[:10]
        yield f"{kit.name} of {kit.federation}: {rows:,} rows; server {kit.address}"
        yield f"certificate until {until}; policy in {kit.folder / POLICY}"
        yield from notes
        adopt_orphans()
        where = {SOCKET: str(place_of(kit.folder, WORKER))}
        words = {
            "kit": str(kit.folder.absolute()),
            "data": data,
            "site": site.model_dump(),
        }
        children = {"worker": Child(_worker_command(words), kit.folder, None, where)}
        if own:
            log, command = kit.folder / "carrier.log", client_command(kit.carrier, kit.name)
            children["carrier"] = Child(command, kit.carrier, log, where)
        else:
            yield f"NVFlare's client needs {SOCKET}={where[SOCKET]}"
        silence = _silence(kit)
        try:
            while True:
                for name, child in children.items():
                    if child.watch() and child.starts > 1:
                        yield f"{name} had died and is started anew"
                yield from next(silence, ())
                time.sleep(_LOOK)
        finally:
            for child in reversed(children.values()):
                child.end()
            leave(place_of(kit.folder, WORKER))


def _from_anywhere(data: str) -> str:
    """A local source as the worker finds it, which runs in the kit's folder; a hub's id as it is."""
    path = Path(data).expanduser()
    return str(path.absolute()) if path.exists() or glob.has_magic(data) else data


def _silence(kit: Kit) -> Iterator[list[str]]:
    """At each look what is to be said of a server that has not invited this site; ends when it has."""
    before, began, patience = _taken(kit), time.monotonic(), _QUIET
    while _taken(kit) == before:
        waited = time.monotonic() - began
        yield [f"not invited for {waited:.0f} s: {_why(kit)}"] if waited > patience else []
        if waited > patience:
            patience *= 2


def _taken(kit: Kit) -> int:
    """How many bytes of used nonces there are: more after every message that the worker has accepted."""
    path = kit.folder / TAKEN
    return path.stat().st_size if path.exists() else 0


def _why(kit: Kit) -> str:
    host, _, port = kit.address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError as error:
        return f"no server at {kit.address} ({error.strerror or error}); waits for it"
    return (
        f"{kit.address} answers; the server may be busy, have left this site out or revoked it, or this "
        f"machine's clock may be before the certificates' beginning: see {kit.folder / 'carrier.log'}"
    )


def _worker_command(words: Mapping[str, object]) -> list[str]:
    return [sys.executable, "-u", "-m", "fedit.federation.worker", json.dumps(words)]
