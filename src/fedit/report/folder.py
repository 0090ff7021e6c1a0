"""The run folder: plan, environment, journal, checkpoints, adapter; a crash at any moment loses nothing."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fedit.core.errors import FeditError, InputError
from fedit.core.messages import Payload, State
from fedit.core.wire import pack, unpack_own
from fedit.files import lock_folder, write_atomically

TOKENS = ("tokens/train.safetensors", "tokens/test.safetensors")
"""Files of the run's encoded rows: those dealt to clients, and those held out."""

KEEP = 3
"""Checkpoints kept: the newest and two to fall back on."""

_PUBLIC, _PRIVATE = "public.", "private."


class RunFolder:
    """One run on disk; it holds a lock until closed, unless it is opened to read only.

    `plan.yaml` the resolved plan · `environment.json` versions, hashes · `journal.jsonl` one record a
    round · `checkpoints/` · `tokens/` the rows as trained and scored on · `homes/` what simulated clients
    keep · `adapter/` the result.
    """

    def __init__(self, path: Path, *, read_only: bool = False):
        self.path = path
        self._lock: IO[str] | None = None
        if read_only:
            if not self.started:
                raise InputError(
                    f"run folder {path}: no plan.yaml in it; give the --output of a run"
                )
            return
        self._lock = lock_folder(path)
        (path / "checkpoints").mkdir(exist_ok=True)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock:
            self._lock.close()

    def discard_unstarted(self) -> None:
        """Take the folder away again if no run was begun in it and nobody else's files are there."""
        if not self.started:
            (self.path / ".lock").unlink(missing_ok=True)
            for name in TOKENS:
                (self.path / name).unlink(missing_ok=True)
            for folder in (self.path / "tokens", self.path / "checkpoints", self.path):
                with contextlib.suppress(OSError):  # not empty: it is not ours alone
                    folder.rmdir()

    @property
    def started(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "plan.yaml").exists()

    def write(self, name: str, content: str) -> None:
        """Put a text file into the folder, atomically."""
        write_atomically(self.path / name, content.encode())

    def environment(self) -> dict[str, Any]:
        """What `environment.json` holds. Raises InputError where it is missing or damaged."""
        path = self.path / "environment.json"
        try:
            known: dict[str, Any] = json.loads(path.read_bytes())
            known["run"], known["plan"], known["data"], known["base"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: missing or damaged ({type(error).__name__}: {error}), so nothing in this folder "
                "can be told apart from another run's; restore it from a copy, or begin anew elsewhere"
            ) from None
        return known

    # ---- journal

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one round's record and force it to disk."""
        with open(self.path / "journal.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def journal(self) -> list[dict[str, Any]]:
        """The records written so far; a line cut off by a crash is left out."""
        path = self.path / "journal.jsonl"
        records = []
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def rewind(self, round: int) -> None:
        """Forget records and checkpoints after `round` finished rounds: those rounds will be run again."""
        for newer in self._rounds():
            if newer > round:
                self._remove(newer)
        kept = [record for record in self.journal() if record["round"] <= round]
        self.write("journal.jsonl", "".join(json.dumps(r) + "\n" for r in kept))

    # ---- checkpoints

    def save(self, state: State, run: str) -> None:
        """Write the state after a round, then its seal; without the seal it does not count."""
        block = pack(_payload(state), {"run": run, "round": state.round})
        path = self._checkpoint(state.round)
        write_atomically(path, block)
        seal = {"run": run, "round": state.round, "sha256": hashlib.sha256(block).hexdigest()}
        write_atomically(path.with_suffix(".json"), json.dumps(seal).encode())
        for old in self._rounds()[:-KEEP]:
            self._remove(old)

    def latest(self, run: str) -> tuple[State | None, list[str]]:
        """The newest checkpoint of this run that is whole, and a line for each one passed over."""
        troubles: list[str] = []
        for round in reversed(self._rounds()):
            try:
                return self._load(round, run), troubles
            except (FeditError, OSError, ValueError, KeyError, TypeError) as error:
                troubles.append(f"checkpoint {self._checkpoint(round).name} passed over: {error}")
        return None, troubles

    def _load(self, round: int, run: str) -> State:
        path = self._checkpoint(round)
        seal = json.loads(path.with_suffix(".json").read_text())
        if seal["run"] != run:
            raise FeditError("it belongs to another run")
        block = path.read_bytes()
        if hashlib.sha256(block).hexdigest() != seal["sha256"]:
            raise FeditError("its bytes are not the ones that were written (truncated or changed)")
        payload, envelope = unpack_own(block)
        if envelope != {"run": run, "round": round}:
            raise FeditError("it belongs to another run or round")
        return State(round, _part(payload, _PUBLIC), _part(payload, _PRIVATE))

    def _remove(self, round: int) -> None:
        self._checkpoint(round).with_suffix(".json").unlink()
        self._checkpoint(round).unlink(missing_ok=True)

    def _checkpoint(self, round: int) -> Path:
        return self.path / "checkpoints" / f"{round:06d}.safetensors"

    def _rounds(self) -> list[int]:
        seals = (self.path / "checkpoints").glob("*.json")
        return sorted(int(path.stem) for path in seals if path.stem.isdigit())


def _payload(state: State) -> Payload:
    public = {_PUBLIC + role: tree for role, tree in state.public.items()}
    return {**public, **{_PRIVATE + role: tree for role, tree in state.private.items()}}


def _part(payload: Payload, prefix: str) -> Payload:
    return {
        role.removeprefix(prefix): tree for role, tree in payload.items() if role.startswith(prefix)
    }
