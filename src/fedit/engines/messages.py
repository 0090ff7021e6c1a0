"""Orders and updates as bytes, and how many."""

from typing import Any

from fedit.core.messages import Order, Update
from fedit.core.wire import pack, packed_size, unpack

_PERSONAL = "personal."


def pack_order(order: Order, client: str) -> bytes:
    """What one client of the cohort receives: the public payload and its own personal one."""
    return pack(*_order_parts(order, client))


def unpack_order(block: bytes) -> Order:
    """The order in a block, with the personal payload of its receiver only."""
    payload, envelope = unpack(block)
    client = envelope.pop("client")
    personal = {r.removeprefix(_PERSONAL): t for r, t in payload.items() if r.startswith(_PERSONAL)}
    public = {r: t for r, t in payload.items() if not r.startswith(_PERSONAL)}
    envelope |= {key: frozenset(envelope[key]) for key in ("trains", "travels")}
    return Order(public=public, personal={client: personal} if personal else {}, **envelope)


def pack_update(update: Update) -> bytes:
    """What a client sends back."""
    return pack(*_update_parts(update))


def unpack_update(block: bytes) -> Update:
    """The update in a block."""
    payload, envelope = unpack(block)
    return Update(payload=payload, **envelope)


def order_size(order: Order, client: str) -> int:
    """Bytes one client receives."""
    return packed_size(*_order_parts(order, client))


def update_size(update: Update) -> int:
    """Bytes one client sends."""
    return packed_size(*_update_parts(update))


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
