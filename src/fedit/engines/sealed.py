"""Sealed messages: a label of fixed layout says who sends which payload in which round, and is signed."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedit.core.errors import InputError, quoted
from fedit.core.strict import Reason, WireError
from fedit.core.wire import Block
from fedit.engines.keys import fingerprint
from fedit.engines.messages import ID

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

ORDER, UPDATE, INVITATION, ENROLMENT, FAILURE = 1, 2, 3, 4, 5
"""Kinds of messages: the server's orders and invitations; a client's updates, enrolments and failures."""

MAGIC, VERSION = b"fedit\0", 1

_LAYOUT = struct.Struct(">6sBB16sII64s32s32s16s16s32sQ")
_SIGNATURE = 64

LABEL = _LAYOUT.size + _SIGNATURE
"""Bytes before a payload: every message is a label, its signature, and the payload."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agree on before a run: its id (32 hex digits), hashes of base and recipe (64)."""

    run: str
    base: str
    recipe: str

    def __post_init__(self) -> None:
        for name, digits in (("run", 32), ("base", 64), ("recipe", 64)):
            value = getattr(self, name)
            if len(value) != digits or not set(value) <= set("0123456789abcdef"):
                raise InputError(f"{name} {quoted(value)}: must be {digits} small hex digits")


@dataclass(frozen=True, slots=True)
class Label:
    """What is signed. `client` is an order's receiver or an update's sender; `nonce` is drawn for it alone.

    `answers` is the nonce of the order that an update answers (zeros in an order).
    """

    kind: int
    terms: Terms
    round: int
    attempt: int
    client: str
    nonce: bytes
    answers: bytes
    digest: bytes
    size: int

    def packed(self) -> bytes:
        """The label in its one form, 232 bytes."""
        if not ID.fullmatch(self.client):
            raise InputError(
                f"client {quoted(self.client)}: must be like [a-z0-9][a-z0-9_-]{{0,63}}"
            )
        return _LAYOUT.pack(
            MAGIC,
            VERSION,
            self.kind,
            bytes.fromhex(self.terms.run),
            self.round,
            self.attempt,
            self.client.encode(),
            bytes.fromhex(self.terms.base),
            bytes.fromhex(self.terms.recipe),
            self.nonce,
            self.answers,
            self.digest,
            self.size,
        )


def read_label(message: Block) -> tuple[Label, bytes, memoryview]:
    """A message's label, signature and payload (no copy), none believed yet. Raises WireError."""
    view = memoryview(message).cast("B")
    if len(view) < LABEL:
        raise WireError(Reason.SIZE, f"{len(view)} bytes, a label alone has {LABEL}")
    (
        magic,
        version,
        kind,
        run,
        round,
        attempt,
        client,
        base,
        recipe,
        nonce,
        answers,
        digest,
        size,
    ) = _LAYOUT.unpack(view[: _LAYOUT.size])
    if (magic, version) != (MAGIC, VERSION):
        said = f"{quoted(magic)} version {version}"
        raise WireError(Reason.FORMAT, f"{said}, expected {quoted(MAGIC)} version {VERSION}")
    if not ORDER <= kind <= FAILURE:
        raise WireError(Reason.KIND, f"{kind}, expected {ORDER} to {FAILURE}")
    name = client.rstrip(b"\0").decode("latin-1")
    if not ID.fullmatch(name):
        raise WireError(Reason.CLIENT, f"{quoted(name)} is no id")
    payload = view[LABEL:]
    if size != len(payload):
        raise WireError(Reason.SIZE, f"a payload of {len(payload)} bytes, the label tells {size}")
    terms = Terms(run.hex(), base.hex(), recipe.hex())
    label = Label(kind, terms, round, attempt, name, nonce, answers, digest, size)
    return label, bytes(view[_LAYOUT.size : LABEL]), payload


def seal(label: Label, key: "Ed25519PrivateKey") -> bytes:
    """A label and its signature, which go before the payload."""
    text = label.packed()
    return text + key.sign(text)


def check(
    message: Block,
    kind: int,
    terms: Terms,
    key_of: Mapping[str, "Ed25519PublicKey"],
    client: str | None = None,
) -> tuple[Label, memoryview]:
    """A message whose client, signature, kind and terms are right; the digest is left. Raises WireError.

    `key_of` holds the signer's key by the client that the label names, and this must be `client` where one
    is given. The signature comes before all that is the signer's own to say.
    """
    from cryptography.exceptions import InvalidSignature

    label, signature, payload = read_label(message)
    if client is not None and label.client != client:
        raise WireError(Reason.IDENTITY, f"the message names {label.client}, expected {client}")
    key = key_of.get(label.client)
    if key is None:
        known = ", ".join(sorted(key_of)[:5])
        raise WireError(Reason.CLIENT, f"{label.client} is none of those known here: {known} …")
    try:
        key.verify(signature, memoryview(message).cast("B")[: _LAYOUT.size])
    except InvalidSignature:
        made, owner = signature[:8].hex(), fingerprint(key)
        raise WireError(
            Reason.SIGNATURE, f"{made}… is not one of this label by the key {owner}"
        ) from None
    if label.kind != kind:
        raise WireError(Reason.KIND, f"{label.kind}, expected {kind}")
    for reason, said, expected in (
        (Reason.RUN, label.terms.run, terms.run),
        (Reason.BASE, label.terms.base, terms.base),
        (Reason.RECIPE, label.terms.recipe, terms.recipe),
    ):
        if said != expected:
            raise WireError(reason, f"{said}, expected {expected}")
    return label, payload


def check_digest(label: Label, payload: memoryview) -> None:
    """The payload is the one that was signed for. Raises WireError."""
    if (found := hashlib.sha256(payload).digest()) != label.digest:
        raise WireError(Reason.DIGEST, f"{found.hex()}, signed for was {label.digest.hex()}")
