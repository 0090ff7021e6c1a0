"""Files that a crash leaves old or new, never half; folders that belong to one process alone."""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fedit.core.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write, fsync, rename, fsync the folder: after this returns the file survives a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _fsync(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write and rename: readers find the old file or the new one; a power cut may take it until `flush`."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def flush(paths: Collection[Path]) -> None:
    """Fsync files and folders, many at once: the disk writes them down together, not one by one."""
    if paths:
        with ThreadPoolExecutor(min(16, len(paths))) as pool:
            list(pool.map(_fsync, paths))


def _fsync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into that takes its name only when it is complete, in place of an older one."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    umask = os.umask(0)
    os.umask(umask)
    for file in temporary.rglob("*"):  # some libraries write files that only their owner can read
        file.chmod((0o777 if file.is_dir() else 0o666) & ~umask)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def lock_folder(path: Path, key: str = "output") -> IO[str]:
    """Make a folder this process's own until the file returned is closed. Raises InputError."""
    other = "choose another --output" if key == "output" else "end it first"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "a")  # noqa: SIM115 - held until close
    except OSError as error:
        raise InputError(
            f"{key} {path}: cannot be written ({error.strerror}); choose another"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise InputError(
            f"{key} {path}: another process is running there; wait for it or {other}"
        ) from None
    return lock
