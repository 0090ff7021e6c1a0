"""Messages between processes of one machine: lists of byte strings over a local socket. Loads no torch."""

import contextlib
import os
import socket
import struct
import tempfile
from hashlib import sha256
from pathlib import Path

from fedit.core.errors import FeditError

SOCKET = "FEDIT_SOCKET"
"""Environment variable by which the network engine's processes find ours."""

_COUNT, _SIZE = struct.Struct("<B"), struct.Struct("<Q")
_CHUNK = 1 << 30


class Hung(FeditError):
    """The other end has closed the line."""


def send(line: socket.socket, *parts: bytes | memoryview) -> None:
    """Send up to 255 byte strings. Raises Hung."""
    parts = tuple(memoryview(part).cast("B") for part in parts)  # whose lengths are in bytes
    try:
        line.sendall(_COUNT.pack(len(parts)) + b"".join(_SIZE.pack(len(part)) for part in parts))
        for part in parts:
            line.sendall(part)
    except OSError as error:
        raise Hung(f"local socket: {error}") from None


def receive(line: socket.socket) -> list[bytes]:
    """The next byte strings sent. Raises Hung where there are no more."""
    (count,) = _COUNT.unpack(_exactly(line, _COUNT.size))
    sizes = [size for (size,) in _SIZE.iter_unpack(_exactly(line, _SIZE.size * count))]
    return [_exactly(line, size) for size in sizes]


def listen(path: Path) -> socket.socket:
    """A socket that processes of the same user may connect to."""
    path.unlink(missing_ok=True)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.bind(str(path))
    os.chmod(path, 0o600)
    line.listen()
    return line


def call(path: Path | str) -> socket.socket:
    """A line to the process that listens there. Raises OSError where none does."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(str(path))
    except OSError:
        line.close()
        raise
    return line


def hang_up(line: socket.socket) -> None:
    """Close a line at which another thread may wait: it and the other end are told at once."""
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()


def place_of(folder: Path, name: str) -> Path:
    """Where the socket `name` of a kit's processes lies: a folder of the user's own, whose path is short.

    A socket's path may have 107 bytes only, which a kit's may exceed. Raises FeditError where somebody else
    owns the folder.
    """
    mark = sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"fedit-{mark}"
    own.mkdir(mode=0o700, exist_ok=True)
    found = own.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or not own.is_dir() or own.is_symlink():
        raise FeditError(
            f"{own}: belongs to somebody else or is open to others; remove it, or set XDG_RUNTIME_DIR to a "
            "folder of your own"
        )
    return own / name


def leave(path: Path) -> None:
    """Remove a socket, and its folder where nothing else is in it."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def _exactly(line: socket.socket, size: int) -> bytes:
    """So many bytes; where they come at once they are in memory once."""
    parts, got = list[bytes](), 0
    while got < size:
        try:
            more = line.recv(min(size - got, _CHUNK), socket.MSG_WAITALL)
        except OSError as error:
            raise Hung(f"local socket: {error}") from None
        if not more:
            raise Hung("local socket: the other end has closed it")
        parts.append(more)
        got += len(more)
    return parts[0] if len(parts) == 1 else b"".join(parts)
