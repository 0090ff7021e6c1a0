"""A stranger's JSON and the header of its block: read strictly, before anything is allocated for them."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from fedit.core.errors import FeditError, quoted
from fedit.core.tree import Spec

HEADER = 256 * 1024
"""The most bytes a stranger's header may have."""

_DEPTH, _DIGITS, _DIMENSIONS, _NUMBERS, _ROLES = 16, 64, 8, 2**48, 64

# In the order in which safetensors lays tensors out.
DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_BY_WORD = {word: dtype for dtype, word in DTYPES.items()}
_MARKS = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)


class Reason(StrEnum):
    """Why bytes were refused."""

    SIZE = "size"
    HEADER = "header"
    TEXT = "text"
    JSON = "json"
    NESTING = "nesting"
    TWICE = "key twice"
    NUMBER = "number"
    METADATA = "metadata"
    ENTRY = "entry"
    OFFSETS = "offsets"
    ROLES = "roles"
    NAMES = "names"
    SHAPE = "shape"
    DTYPE = "dtype"
    VALUE = "value"
    ENVELOPE = "envelope"
    FORMAT = "format"
    KIND = "kind"
    CLIENT = "client"
    IDENTITY = "identity"
    SIGNATURE = "signature"
    RUN = "run"
    BASE = "base"
    RECIPE = "recipe"
    STALE = "stale"
    UNASKED = "unasked"
    ORDER = "order"
    REPLAY = "replay"
    DUPLICATE = "duplicate"
    DIGEST = "digest"


class WireError(FeditError):
    """Bytes that are refused: a typed reason, and a detail that repeats little of them."""

    def __init__(self, reason: Reason, detail: str):
        self.reason, self.detail = reason, detail
        super().__init__(f"message refused ({reason}): {detail}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor that a header tells of: where its bytes lie behind the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a block holds: its tensors by role and name, in the order of their bytes, and its envelope."""

    entries: dict[str, dict[str, Entry]]
    envelope: dict[str, Any]


def read_json(text: bytes, *, own: bool = False) -> Any:
    """A JSON value: UTF-8, no key twice, no NaN or infinity, no huge integer, at most 16 deep.

    What was written here (`own`) may hold NaN and infinity. Raises WireError.
    """
    if not own:
        _check_nesting(text)
    constant = float if own else _no_number
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=constant,
            parse_float=float if own else _finite,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise WireError(Reason.TEXT, f"byte {error.start} is no UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise WireError(Reason.JSON, f"{type(error).__name__}: {quoted(error)}") from None


def read_header(text: bytes, size: int, *, own: bool = False) -> Header:
    """Of a header and the number of bytes behind it, what they hold. Raises WireError.

    Every tensor has a role that is told, a shape and a dtype that make up its bytes, and all of them lie
    end to end and leave nothing over.
    """
    if text[:1] != b"{":  # with spaces before it two readers could differ
        raise WireError(Reason.JSON, "a header begins with a brace")
    header = read_json(text, own=own)
    roles, envelope = _metadata(header.pop("__metadata__", None), own)
    entries: dict[str, dict[str, Entry]] = {role: {} for role in roles}
    laid = sorted(
        ((_entry(full, value), full) for full, value in header.items()),
        key=lambda item: (item[0].begin, item[0].end),
    )
    at = 0
    for entry, full in laid:
        role, slash, name = full.partition("/")
        if not slash or role not in entries:
            raise WireError(Reason.ROLES, f"tensor {quoted(full)} has none of the roles told")
        if entry.begin != at:
            raise WireError(
                Reason.OFFSETS, f"{quoted(full)} begins at {entry.begin}, expected {at}"
            )
        at = entry.end
        entries[role][name] = entry
    if at != size:
        raise WireError(Reason.OFFSETS, f"tensors end at {at} of {size} bytes")
    return Header(entries, envelope)


def difference(found: Mapping[str, Spec], wanted: Mapping[str, Spec]) -> tuple[Reason, str] | None:
    """The first way in which roles, names, shapes and dtypes are not those wanted."""
    if found.keys() != wanted.keys():
        sent = quoted(sorted(map(str, found)))
        return Reason.ROLES, f"sent {sent}, expected {sorted(wanted)}"
    for role, specs in wanted.items():
        if missing := specs.keys() - found[role].keys():
            return Reason.NAMES, f"{role}: {len(missing)} missing, first {min(missing)}"
        if strange := found[role].keys() - specs.keys():
            first = quoted(min(map(str, strange)))
            return Reason.NAMES, f"{role}: {len(strange)} unexpected, first {first}"
        for name, (shape, dtype) in specs.items():
            has_shape, has_dtype = found[role][name]
            if has_shape != shape:
                has = quoted(has_shape)
                return Reason.SHAPE, f"{role}: {name} is {has}, expected {shape}"
            if has_dtype != dtype:
                return Reason.DTYPE, f"{role}: {name} is {has_dtype}, expected {dtype}"
    return None


def _metadata(value: Any, own: bool) -> tuple[list[str], dict[str, Any]]:
    if type(value) is not dict or value.keys() != {"fedit"} or type(value["fedit"]) is not str:
        raise WireError(Reason.METADATA, "must hold one text under fedit and nothing else")
    known = read_json(value["fedit"].encode("utf-8", "surrogatepass"), own=own)
    if type(known) is not dict or known.keys() != {"roles", "envelope"}:
        raise WireError(Reason.METADATA, "fedit must hold roles and envelope and nothing else")
    roles, envelope = known["roles"], known["envelope"]
    if type(envelope) is not dict:
        raise WireError(Reason.METADATA, "the envelope is no object")
    if type(roles) is not list or not all(type(r) is str and "/" not in r for r in roles):
        raise WireError(Reason.METADATA, "roles must be a list of words without a slash")
    if len(set(roles)) < len(roles) or (len(roles) > _ROLES and not own):
        raise WireError(Reason.METADATA, f"roles must differ and be {_ROLES} at most")
    return roles, envelope


def _entry(full: str, value: Any) -> Entry:
    """What a header says of one tensor, every word of it checked."""

    def refuse(why: str) -> WireError:
        return WireError(Reason.ENTRY, f"tensor {quoted(full)}: {why}")

    if type(value) is not dict or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise refuse("must hold dtype, shape and data_offsets and nothing else")
    word, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    dtype = _BY_WORD.get(word) if type(word) is str else None
    if dtype is None:
        raise refuse(f"dtype {quoted(word)} is unknown")
    if not _counts(shape, _DIMENSIONS) or math.prod(max(n, 1) for n in shape) > _NUMBERS:
        raise refuse(f"shape {quoted(shape)} is none")
    if not _counts(offsets, 2) or len(offsets) != 2:
        raise refuse(f"data_offsets {quoted(offsets)} are none")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise refuse(f"{end - begin} bytes do not make up {quoted(shape)} of {word}")
    return Entry(dtype, tuple(shape), begin, end)


def _counts(value: Any, most: int) -> bool:
    """Whether it is a list of that many whole numbers ≥ 0 at most; true is none."""
    return (
        type(value) is list
        and len(value) <= most
        and all(type(n) is int and 0 <= n <= 2**63 for n in value)
    )


def _check_nesting(text: bytes) -> None:
    depth, inside = 0, False
    for mark in _MARKS.finditer(text):
        sign = mark[0]
        if sign == b'"':
            inside = not inside
        elif not inside and sign in (b"[", b"{"):
            depth += 1
            if depth > _DEPTH:
                raise WireError(Reason.NESTING, f"deeper than {_DEPTH} at byte {mark.start()}")
        elif not inside:
            depth -= 1


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers must never take different values from one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise WireError(Reason.TWICE, quoted(again))
    return found


def _no_number(word: str) -> float:
    raise WireError(Reason.NUMBER, f"{word} is no number here")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise WireError(Reason.NUMBER, f"{quoted(digits)} is beyond every number")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise WireError(Reason.NUMBER, f"an integer of {len(digits)} digits")
    return int(digits)
