"""A stranger's JSON, read strictly, and the one error with which a stranger's bytes are refused."""

import json
import math
import re
from enum import StrEnum
from typing import Any

from fedit.core.errors import FeditError, quoted

_DEPTH, _DIGITS = 16, 64
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
