"""A site: its worker and its carrier kept running, so that no fault needs a person."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedit.core.errors import InputError
from fedit.data.sources import checked, read_source
from fedit.engines.frames import SOCKET, place_of
from fedit.federation.children import Child, adopt_orphans
from fedit.federation.kit import POLICY, WORKER, open_kit
from fedit.files import lock_folder

_LOOK = 0.2  # seconds between two looks at the processes


def check_rows(data: str) -> int:
    """How many rows a file holds, before anything is started. Raises InputError with the bad ones."""
    source = read_source(data)
    checked(source, "refuse")
    return len(source.examples)


def join(
    folder: Path,
    data: str,
    device: str,
    threads: int | None,
    base: Path | None = None,
    own: bool = True,
) -> Iterator[str]:
    """Take part until the caller stops; yields what a person may want to know. Raises InputError.

    `base` is the folder of this site's copy of the base model. Without a carrier of its `own` an NVFlare
    that runs already must know the worker's socket.
    """
    from fedit.engines.nvflare.control import client_command

    kit = open_kit(folder, "site")
    kit.policy()  # refused before anything is begun
    path = Path(data)
    data = str(path.absolute()) if path.exists() else data
    rows = check_rows(data)
    if base is not None and not base.is_dir():
        raise InputError(f"--base {base}: is no folder; give that of a model, or leave it out")
    with lock_folder(kit.folder, "kit"):
        until = kit.expires[:10]
        yield f"{kit.name} of {kit.federation}: {rows:,} rows; server {kit.address}"
        yield f"certificate until {until}; policy in {kit.folder / POLICY}"
        adopt_orphans()
        where = {SOCKET: str(place_of(kit.folder, WORKER))}
        words = {
            "kit": str(kit.folder.absolute()),
            "data": data,
            "device": device,
            "threads": threads,
            "base": base and str(base.absolute()),
        }
        children = {"worker": Child(_worker_command(words), kit.folder, None, where)}
        if own:
            log, command = kit.folder / "carrier.log", client_command(kit.carrier, kit.name)
            children["carrier"] = Child(command, kit.carrier, log, where)
        else:
            yield f"NVFlare's client needs {SOCKET}={where[SOCKET]}"
        try:
            while True:
                for name, child in children.items():
                    if child.watch() and child.starts > 1:
                        yield f"{name} had died and is started anew"
                time.sleep(_LOOK)
        finally:
            for child in reversed(children.values()):
                child.end()
            place_of(kit.folder, WORKER).unlink(missing_ok=True)


def _worker_command(words: Mapping[str, object]) -> list[str]:
    return [sys.executable, "-u", "-m", "fedit.federation.worker", json.dumps(words)]
