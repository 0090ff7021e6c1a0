"""Orders and updates as bytes, and how many."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fedit.core.errors import quoted
from fedit.core.messages import Failure, Order, Payload, Update
from fedit.core.population import Answer, Share
from fedit.core.strict import Reason, WireError
from fedit.core.sums import Sum
from fedit.core.tree import Spec
from fedit.core.wire import Block, pack, packed_size, packed_sizes, unpack, unpack_own
from fedit.engines.short import in_full, in_short

_PERSONAL = "personal."
_NUMBERS = "numbers"

ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What a client's id looks like, as a whole."""

_COUNT = 2**31  # beyond every round and attempt

# What an envelope must hold: key → type; a number may be written without its point.
_UPDATE = {"client": str, "round": int, "attempt": int, "metrics": dict}
_ORDER = {
    "round": int,
    "attempt": int,
    "seed": int,
    "weights": dict,
    "pace": float,
    "trains": list,
    "travels": list,
}
_OWN_ORDER = {**_ORDER, "caps": dict}


def pack_order(order: Order, *clients: str) -> bytes:
    """What a client receives, over a network: the public payload and its own personal one."""
    return pack(*_order_parts(order, clients))


def pack_own_order(order: Order) -> bytes:
    """What a worker receives: one block for the whole cohort, and what the gate needs to know there."""
    payload, envelope = _order_parts(order, order.cohort)
    return pack(payload, {**envelope, "caps": dict(order.caps)})


def unpack_order(block: Block, *, most: int | None = None) -> Order:
    """The order in a block of `most` bytes, as its receivers may see it. Raises WireError."""
    payload, envelope = unpack(block, most=most)
    return _order(payload, envelope, _ORDER)


def unpack_own_order(block: bytes) -> Order:
    """The order in a block for a worker."""
    return _order(*unpack_own(block), _OWN_ORDER)


def _order(payload: Payload, envelope: dict[str, Any], wanted: Mapping[str, type]) -> Order:
    packed, payload = in_full(payload, envelope)
    _check(envelope, wanted)
    _check_numbers("weights", envelope["weights"])
    _check_names(envelope["trains"] + envelope["travels"])
    clients = list(envelope["weights"])
    personal, public = dict[str, Payload](), Payload()
    for role, tree in payload.items():
        number, _, own = role.removeprefix(_PERSONAL).partition(".")
        if not role.startswith(_PERSONAL):
            public[role] = tree
        elif number.isdecimal() and int(number) < len(clients):
            personal.setdefault(clients[int(number)], {})[own] = tree
        else:
            raise WireError(Reason.ROLES, f"{quoted(role)}: there are {len(clients)} clients")
    envelope |= {key: frozenset(envelope[key]) for key in ("trains", "travels")}
    return Order(public=public, personal=personal, packed=packed, **envelope)


def pack_update(update: Update) -> bytes:
    """What a client sends back."""
    return pack(*_update_parts(update))


def unpack_update(
    block: Block, wanted: Mapping[str, Spec] | None = None, client: str | None = None
) -> Update:
    """The update in a block, whose payload must be as `wanted` (core/gate.expected). Raises WireError.

    `client` is who has sent it, where that is known: it must not speak for another.
    """
    update = _update(*unpack(block, wanted))
    if client is not None and update.client != client:
        said = quoted(update.client)
        raise WireError(Reason.IDENTITY, f"{client} sends an update that names {said}")
    return update


def _update(payload: Payload, envelope: dict[str, Any]) -> Update:
    _check(envelope, _UPDATE)
    _check_numbers("metrics", envelope["metrics"])
    if not ID.fullmatch(envelope["client"]):
        raise WireError(Reason.ENVELOPE, f"client {quoted(envelope['client'])} is no id")
    return Update(payload=payload, **envelope)


def pack_answer(answer: Answer) -> bytes:
    """What a worker sends back; the total of a share must be a linear rule's `Sum`."""
    if isinstance(answer, Update):
        return pack_update(answer)
    if isinstance(answer, Failure):
        return pack({}, _failure(answer))
    total: Sum = answer.total
    envelope = {
        "clients": list(answer.clients),
        "metrics": answer.metrics,
        "failures": [_failure(failure) for failure in answer.failures],
        "masses": total.masses,
        "level": total.level,
        "counts": total.counts,
        "shapes": {role: {n: list(s) for n, s in of.items()} for role, of in total.shapes.items()},
    }
    return pack({_NUMBERS: {role: total.numbers[role] for role in total.masses}}, envelope)


def unpack_answer(block: bytes) -> Answer:
    """The answer in a block that a process of our own has packed."""
    payload, said = unpack_own(block)
    if "reason" in said:
        return Failure(**said)
    if "clients" not in said:
        return _update(payload, said)
    shapes = {
        role: {n: torch.Size(s) for n, s in of.items()} for role, of in said["shapes"].items()
    }
    total = Sum(said["masses"], said["level"], said["counts"], payload[_NUMBERS], shapes)
    failures = [Failure(**one) for one in said["failures"]]
    return Share(tuple(said["clients"]), total, said["metrics"], failures)


def order_sizes(order: Order) -> Callable[[str], int]:
    """Bytes each client receives, by its id; what all receive is measured once."""
    public = packed_sizes(_order_parts(order, [])[0])

    def size(client: str) -> int:
        payload, envelope = _order_parts(order, [client])
        return packed_size(payload, envelope) if client in order.personal else public(envelope)

    return size


def update_size(update: Update) -> int:
    """Bytes one client sends."""
    return packed_size(*_update_parts(update))


def _check(envelope: Mapping[str, Any], wanted: Mapping[str, type]) -> None:
    if envelope.keys() != wanted.keys():
        held, keys = quoted(sorted(envelope)), ", ".join(sorted(wanted))
        raise WireError(Reason.ENVELOPE, f"the envelope holds {held}, expected {keys}")
    for key, kind in wanted.items():
        value = envelope[key]
        fits = _is_number(value) if kind is float else isinstance(value, kind)
        if not fits or isinstance(value, bool):
            has = type(value).__name__
            raise WireError(
                Reason.ENVELOPE, f"the envelope's {key} is a {has}, not {kind.__name__}"
            )
    for key in ("round", "attempt"):
        if not 0 <= envelope[key] < _COUNT:
            raise WireError(Reason.ENVELOPE, f"{key} {quoted(envelope[key])} is none")


def _check_numbers(what: str, values: Mapping[str, Any]) -> None:
    if strange := [key for key, value in values.items() if not _is_number(value)]:
        raise WireError(Reason.ENVELOPE, f"{what}: {quoted(strange[0])} is no number")


def _check_names(values: list[Any]) -> None:
    if not all(isinstance(value, str) for value in values):
        raise WireError(Reason.ENVELOPE, "trains and travels must hold names")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order_parts(order: Order, clients: Sequence[str]) -> tuple[Payload, dict[str, Any]]:
    envelope = {
        "round": order.round,
        "attempt": order.attempt,
        "seed": order.seed,
        "weights": {client: order.weights[client] for client in clients},
        "pace": order.pace,
        "trains": sorted(order.trains),
        "travels": sorted(order.travels),
    }
    personal = {
        f"{_PERSONAL}{number}.{role}": tree
        for number, client in enumerate(clients)
        for role, tree in order.personal.get(client, {}).items()
    }
    public, envelope = in_short(order, envelope)
    return {**public, **personal}, envelope


def _failure(failure: Failure) -> dict[str, str]:
    return {"client": failure.client, "reason": failure.reason, "detail": failure.detail}


def _update_parts(update: Update) -> tuple[dict[str, Any], dict[str, Any]]:
    names = ("client", "round", "attempt", "metrics")
    return update.payload, {name: getattr(update, name) for name in names}
