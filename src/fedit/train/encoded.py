"""Examples as tokens: held once and flat, kept in one file that every process maps into its memory."""

import hashlib
import json
import math
import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

_PROMPT_CUT, _ANSWER_CUT = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One example as tokens: `ids` int32 [length], `learn` bool [length], and what was cut away.

    A pair is two conversations end to end, the rejected one from `middle` on (0 = no pair); `lead` is by how
    many nats the reference finds its chosen answer likelier, NaN until it is asked.
    """

    ids: NDArray[np.int32]
    learn: NDArray[np.bool_]
    prompt_cut: bool = False
    answer_cut: bool = False
    middle: int = 0
    lead: float = math.nan


def apart(rows: Iterable[Encoded]) -> list[Encoded]:
    """Every conversation by itself: of each pair the chosen one, then the rejected one."""
    halves = list[Encoded]()
    for row in rows:
        if row.middle:
            halves.append(Encoded(row.ids[: row.middle], row.learn[: row.middle]))
        halves.append(Encoded(row.ids[row.middle :], row.learn[row.middle :]))
    return halves


@dataclass(frozen=True, slots=True)
class Unlearnable:
    """An example with nothing to learn: where it stands and why."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Examples end to end: number i is `ids[offsets[i]:offsets[i + 1]]`, with `learn` and its `cut` bits.

    `middle` is where in it a pair's rejected conversation begins.
    """

    ids: NDArray[np.int32]
    learn: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    cut: NDArray[np.uint8]
    middle: NDArray[np.int64]


class EncodedRows(Sequence[Encoded]):
    """Some of a set's examples: an `Encoded` is made when it is asked for, a view of the set's memory."""

    __slots__ = ("_places", "_tokens")

    def __init__(self, tokens: Tokens, places: NDArray[np.int64]) -> None:
        self._tokens, self._places = tokens, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> "EncodedRows": ...
    def __getitem__(self, index: int | slice) -> "Encoded | EncodedRows":
        if isinstance(index, slice):
            return EncodedRows(self._tokens, self._places[index])
        place, tokens = int(self._places[index]), self._tokens
        here = slice(int(tokens.offsets[place]), int(tokens.offsets[place + 1]))
        cut = int(tokens.cut[place])
        return Encoded(
            tokens.ids[here],
            tokens.learn[here],
            bool(cut & _PROMPT_CUT),
            bool(cut & _ANSWER_CUT),
            int(tokens.middle[place]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSet:
    """Examples as tokens; `rows[i]` is the place of `encoded[i]` among the examples given."""

    tokens: Tokens
    rows: NDArray[np.int64]
    unlearnable: list[Unlearnable]

    @classmethod
    def of(cls, outcomes: Iterable[Encoded | Unlearnable]) -> "EncodedSet":
        """The outcomes of encoding, in the order of the examples; memory beyond the tokens stays flat."""
        ids, learn, offsets, cut = array("i"), bytearray(), array("q", [0]), bytearray()
        middle, rows = array("q"), array("q")
        unlearnable: list[Unlearnable] = []
        for row, one in enumerate(outcomes):
            if isinstance(one, Unlearnable):
                unlearnable.append(one)
                continue
            ids.frombytes(one.ids.tobytes())
            learn += one.learn.tobytes()
            offsets.append(len(ids))
            cut.append(_PROMPT_CUT * one.prompt_cut + _ANSWER_CUT * one.answer_cut)
            middle.append(one.middle)
            rows.append(row)
        tokens = Tokens(
            np.frombuffer(ids, np.int32),
            np.frombuffer(learn, np.bool_),
            np.frombuffer(offsets, np.int64),
            np.frombuffer(cut, np.uint8),
            np.frombuffer(middle, np.int64),
        )
        return cls(tokens, np.frombuffer(rows, np.int64), unlearnable)

    @property
    def encoded(self) -> EncodedRows:
        """All examples that have something to learn."""
        return self.select(np.arange(len(self.rows)))

    @property
    def supervised(self) -> NDArray[np.int64]:
        """How many tokens of each example are learned; its first never is."""
        starts = self.tokens.offsets[:-1]
        if not len(starts):
            return np.zeros(0, np.int64)
        counts = np.add.reduceat(self.tokens.learn, starts, dtype=np.int64)
        return counts - self.tokens.learn[starts]

    @property
    def prompts_cut(self) -> int:
        """How many examples lost a part of their prompt, or their oldest exchanges."""
        return int(np.count_nonzero(self.tokens.cut & _PROMPT_CUT))

    @property
    def answers_cut(self) -> int:
        """How many examples lost the end of their answer."""
        return int(np.count_nonzero(self.tokens.cut & _ANSWER_CUT))

    def select(self, places: NDArray[np.int64]) -> EncodedRows:
        """The examples at these places of `encoded`."""
        return EncodedRows(self.tokens, places)

    def save(self, path: Path, key: str = "") -> None:
        """Write the set as one safetensors file; `key` says what its tokens were made of."""
        path.parent.mkdir(parents=True, exist_ok=True)
        listed = json.dumps([[one.where, one.reason] for one in self.unlearnable])
        known = {"key": key, "unlearnable": listed, "sha256": self._digest(listed)}
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            save_file(self._arrays(), temporary, known)
        except SafetensorError as error:  # a full disk
            raise OSError(f"{temporary}: {error}") from None
        os.replace(temporary, path)

    @classmethod
    def open(cls, path: Path, key: str | None = None) -> "EncodedSet | None":
        """The set in a file, mapped into memory; None if it is missing, damaged or made under another key."""
        try:
            with safe_open(path, framework="pt") as file:  # numpy's own reader copies
                known = file.metadata() or {}
                arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
            for values in arrays.values():
                values.setflags(write=False)
            if key not in (None, known["key"]):
                return None
            rows = arrays.pop("rows")
            unlearnable = [Unlearnable(*one) for one in json.loads(known["unlearnable"])]
            found = cls(Tokens(**arrays), rows, unlearnable)
            return found if found._digest(known["unlearnable"]) == known["sha256"] else None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        named = {field.name: getattr(self.tokens, field.name) for field in fields(self.tokens)}
        return {**named, "rows": self.rows}

    def _digest(self, unlearnable: str) -> str:
        digest = hashlib.sha256(unlearnable.encode())
        for name, values in self._arrays().items():
            digest.update(f"{name} {values.dtype} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()
