"""Writing files so that a crash leaves the old or the new one, never half of one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write, fsync, rename, fsync the folder: after this returns the file survives a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
