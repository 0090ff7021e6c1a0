"""Orders and updates as bytes, and how many."""

from collections.abc import Callable, Mapping
from typing import Any

from fedit.core.messages import Order, Update
from fedit.core.wire import WireError, pack, packed_size, packed_sizes, unpack

_PERSONAL = "personal."

# What an envelope must hold: key → type; a number may be written without its point.
_UPDATE = {"client": str, "round": int, "attempt": int, "metrics": dict}
_ORDER = {
    "client": str,
    "round": int,
    "attempt": int,
    "seed": int,
    "weights": dict,
    "pace": float,
    "trains": list,
    "travels": list,
}


def pack_order(order: Order, client: str) -> bytes:
    """What one client of the cohort receives: the public payload and its own personal one."""
    return pack(*_order_parts(order, client))


def unpack_order(block: bytes) -> Order:
    """The order in a block, with the personal payload of its receiver only. Raises WireError."""
    payload, envelope = unpack(block)
    _check(envelope, _ORDER)
    _check_numbers("weights", envelope["weights"])
    _check_names(envelope["trains"] + envelope["travels"])
    client = envelope.pop("client")
    personal = {r.removeprefix(_PERSONAL): t for r, t in payload.items() if r.startswith(_PERSONAL)}
    public = {r: t for r, t in payload.items() if not r.startswith(_PERSONAL)}
    envelope |= {key: frozenset(envelope[key]) for key in ("trains", "travels")}
    return Order(public=public, personal={client: personal} if personal else {}, **envelope)


def pack_update(update: Update) -> bytes:
    """What a client sends back."""
    return pack(*_update_parts(update))


def unpack_update(block: bytes) -> Update:
    """The update in a block. Raises WireError."""
    payload, envelope = unpack(block)
    _check(envelope, _UPDATE)
    _check_numbers("metrics", envelope["metrics"])
    return Update(payload=payload, **envelope)


def order_sizes(order: Order) -> Callable[[str], int]:
    """Bytes each client receives, by its id; what all receive is measured once."""
    public = packed_sizes(order.public)

    def size(client: str) -> int:
        payload, envelope = _order_parts(order, client)
        return packed_size(payload, envelope) if client in order.personal else public(envelope)

    return size


def update_size(update: Update) -> int:
    """Bytes one client sends."""
    return packed_size(*_update_parts(update))


def _check(envelope: Mapping[str, Any], wanted: Mapping[str, type]) -> None:
    if envelope.keys() != wanted.keys():
        raise WireError(f"the envelope holds {sorted(envelope)}, expected {sorted(wanted)}")
    for key, kind in wanted.items():
        value = envelope[key]
        fits = _is_number(value) if kind is float else isinstance(value, kind)
        if not fits or isinstance(value, bool):
            raise WireError(
                f"the envelope's {key} is a {type(value).__name__}, not {kind.__name__}"
            )


def _check_numbers(what: str, values: Mapping[str, Any]) -> None:
    if strange := [key for key, value in values.items() if not _is_number(value)]:
        raise WireError(f"{what}: {strange[0]!r} is no number")


def _check_names(values: list[Any]) -> None:
    if not all(isinstance(value, str) for value in values):
        raise WireError("trains and travels must hold names")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order_parts(order: Order, client: str) -> tuple[dict[str, Any], dict[str, Any]]:
    envelope = {
        "client": client,
        "round": order.round,
        "attempt": order.attempt,
        "seed": order.seed,
        "weights": {client: order.weights[client]},
        "pace": order.pace,
        "trains": sorted(order.trains),
        "travels": sorted(order.travels),
    }
    personal = {_PERSONAL + role: tree for role, tree in order.personal.get(client, {}).items()}
    return {**order.public, **personal}, envelope


def _update_parts(update: Update) -> tuple[dict[str, Any], dict[str, Any]]:
    names = ("client", "round", "attempt", "metrics")
    return update.payload, {name: getattr(update, name) for name in names}
