"""What server and sites tell each other beside models: counts, refusals, rounds to forget. Loads no torch."""

import json
import struct
from collections.abc import Sequence
from typing import Any

from fedit.core.errors import quoted
from fedit.core.strict import Reason, WireError

_UNDONE = 16  # refused rounds that a site is reminded of: as many as it can have kept, and more
_MOST = 4096  # bytes of what a site says beside an update


def small(payload: memoryview) -> dict[str, Any]:
    """What a site says beside updates: a small JSON object. Raises WireError."""
    if len(payload) > _MOST:
        raise WireError(Reason.SIZE, f"{len(payload)} bytes, at most {_MOST}")
    try:
        said = json.loads(bytes(payload))
    except (ValueError, RecursionError):
        raise WireError(Reason.FORMAT, "no JSON object") from None
    if not isinstance(said, dict):
        raise WireError(Reason.FORMAT, "no JSON object")
    return said


def counted(value: Any, needed: bool) -> int:
    """A count as told; one that is withheld is 1, where none is needed."""
    if value is None and not needed:
        return 1
    if value is None:
        raise WireError(
            Reason.VALUE,
            "withholds its counts, by which federation.weights examples and tokens weigh: set "
            "federation.weights: uniform, or have the site's policy tell counts",
        )
    if type(value) is not int or not 1 <= value <= 10**12:
        raise WireError(Reason.ENVELOPE, f"{quoted(value)} is no count")
    return value


def to_undo(rounds: Sequence[int]) -> bytes:
    """What stands before an order's bytes: the rounds (from 1) that the site must forget."""
    latest = list(rounds)[-_UNDONE:]
    return struct.pack(f"<I{len(latest)}I", len(latest), *latest)


def undone(payload: memoryview) -> tuple[list[int], memoryview]:
    """The rounds to forget, and the order's bytes. Raises WireError."""
    (count,) = struct.unpack_from("<I", payload) if len(payload) >= 4 else (_UNDONE + 1,)
    start = 4 + 4 * count
    if count > _UNDONE or len(payload) < start:
        raise WireError(Reason.SIZE, f"{len(payload)} bytes are no order")
    return list(struct.unpack_from(f"<{count}I", payload, 4)), payload[start:]
