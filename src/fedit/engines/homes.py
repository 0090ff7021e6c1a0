"""What simulated clients keep between rounds, on disk, so that a killed run can go back."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from fedit.core.errors import BrokenInvariant
from fedit.core.messages import Home, Payload
from fedit.core.wire import pack, unpack_own
from fedit.files import flush, write_whole

GENERATIONS = 3
"""Rounds a client's home can be taken back by: as many as checkpoints are kept."""


class Homes:
    """One folder a client, one file for each round after which it changed; nothing kept, nothing written.

    A home is asked for by round; what a client wrote in rounds that the server has forgotten (a crash, a
    repeated round) is passed over, and removed by `rewind`.
    """

    def __init__(self, folder: Path, *, alone: bool = True):
        """`alone` says that no other process saves homes there."""
        self.folder = folder
        self._alone = alone
        self._rewound: int | None = None
        self._saved: list[Path] = []  # since then
        self._unsafe: list[Path] = []  # not forced to disk yet

    def load(self, client: str, round: int) -> Home:
        """The home as it was when `round` rounds were finished."""
        for generation, path in reversed(self._files(client)):
            if generation <= round:
                return Home(_open(path))
        return Home()

    def unusable(self, clients: Iterable[str], round: int) -> list[str]:
        """The clients whose home after `round` rounds, which they must have, is missing or damaged."""
        lost = []
        for client in sorted(clients):
            try:
                if not self.load(client, round).payload:
                    lost.append(client)
            except BrokenInvariant:
                lost.append(client)
        return lost

    def save(self, client: str, round: int, home: Home) -> None:
        """Keep the home of a client that has now done its part of round number `round` (from 1).

        What is saved outlasts a power cut once `flush` has returned.
        """
        files = self._files(client)
        if not home.payload and not files:
            return
        place = self.folder / client
        place.mkdir(parents=True, exist_ok=True)
        block = pack(home.payload, {})
        path = place / f"{round:08d}.home"
        write_whole(path, _seal(block) + block)
        self._unsafe.append(path)
        if self._alone:
            self._saved.append(path)
        old = [path for generation, path in files if generation <= round - GENERATIONS]
        for path in old[:-1]:  # the newest of the old ones is what an early round would still need
            os.remove(path)

    def flush(self) -> None:
        """Force to disk what was saved: before the server counts the round as done."""
        folders = {path.parent for path in self._unsafe}
        flush([*self._unsafe, *folders, *({self.folder} if folders else ())])
        self._unsafe = []

    def take_back(self, clients: Iterable[str], round: int) -> None:
        """Forget, for good, what these clients kept in round number `round` (from 1)."""
        gone = [self.folder / client / f"{round:08d}.home" for client in clients]
        there = [path for path in gone if path.exists()]
        for path in there:
            path.unlink()
        flush([path.parent for path in there])

    def rewind(self, round: int) -> None:
        """Forget what was kept after `round`: rounds the server has forgotten or is about to repeat.

        Every home is looked at once; from then on only those saved since the last look, as long as nobody
        else saves and rounds do not go back.
        """
        seen = self._alone and self._rewound is not None and self._rewound <= round
        for path in self._saved if seen else self.folder.glob("*/*.home"):
            if path.stem.isdigit() and int(path.stem) > round:
                path.unlink(missing_ok=True)
        self._rewound, self._saved, self._unsafe = round, [], []

    def _files(self, client: str) -> list[tuple[int, Path]]:
        place = self.folder / client
        try:
            found = [place / name for name in os.listdir(place) if name.endswith(".home")]
        except FileNotFoundError:
            return []
        return sorted((int(path.stem), path) for path in found if path.stem.isdigit())


def _seal(block: bytes) -> bytes:
    return hashlib.sha256(block).hexdigest().encode()


def _open(path: Path) -> Payload:
    content = path.read_bytes()
    seal, block = content[:64], content[64:]
    if _seal(block) != seal:
        raise BrokenInvariant(
            f"{path}: its bytes are not the ones that were written; restore it from a copy"
        )
    return unpack_own(block)[0]
