"""Both ends of sealed messages: the server's ledger of a round, and a client's post."""

import hashlib
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedit.core.errors import InputError
from fedit.core.strict import Reason, WireError
from fedit.core.wire import Block
from fedit.engines.keys import need_cryptography
from fedit.engines.sealed import ORDER, UPDATE, Label, Terms, check, check_digest, seal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_NONCE = 16


@dataclass(slots=True)
class _Asked:
    """A client's place in a round: the nonce of its order, and that of the update that answered it."""

    nonce: bytes
    answer: bytes | None = None


class Ledger:
    """The server's book of one round: whom it has asked, and who has answered.

    An update passes once, from a client that was asked, for the order it was asked with: the nonce of an
    order is drawn anew whenever one is sealed, so that nothing recorded earlier fits, not even after a
    restart that repeats the round. Safe to use from many threads.
    """

    def __init__(
        self, terms: Terms, key: "Ed25519PrivateKey", clients: Mapping[str, "Ed25519PublicKey"]
    ):
        need_cryptography()
        self._terms, self._key, self._clients = terms, key, dict(clients)
        self._round = (-1, -1)
        self._asked: dict[str, _Asked] = {}
        self._lock = threading.Lock()

    def seal(
        self, client: str, round: int, attempt: int, *blocks: Block, kind: int = ORDER
    ) -> bytes:
        """The message that takes an order's bytes to this client, which may come in several blocks.

        Another round or attempt ends the one before.
        """
        if client not in self._clients:
            raise InputError(f"client {client}: is not known here; enrol its public key first")
        nonce = secrets.token_bytes(_NONCE)
        label = _label(kind, self._terms, round, attempt, client, nonce, bytes(_NONCE), blocks)
        message = b"".join((seal(label, self._key), *blocks))
        with self._lock:
            if (round, attempt) != self._round:
                self._round, self._asked = (round, attempt), {}
            self._asked[client] = _Asked(nonce)
        return message

    def admit(
        self, message: Block, sender: str | None = None, kind: int = UPDATE
    ) -> tuple[str, memoryview]:
        """The client and the bytes of an update that may be read; it can be admitted only once.

        `sender` is who the connection says it is. Raises WireError.
        """
        label, payload = check(message, kind, self._terms, self._clients, sender)
        with self._lock:
            self._find(label)
        check_digest(label, payload)  # outside: of a large payload it takes a second
        with self._lock:
            self._find(label).answer = label.nonce
        return label.client, payload

    def _find(self, label: Label) -> _Asked:
        """The place of the client that a label names, which must be free."""
        if (label.round, label.attempt) != self._round:
            said = f"round {label.round} attempt {label.attempt}"
            raise WireError(
                Reason.STALE, f"{said}, expected round {self._round[0]} attempt {self._round[1]}"
            )
        asked = self._asked.get(label.client)
        if asked is None:
            names = ", ".join(sorted(self._asked)[:5])
            raise WireError(Reason.UNASKED, f"{label.client} was not asked, but {names} …")
        if label.answers != asked.nonce:
            said = label.answers.hex()
            raise WireError(Reason.ORDER, f"answers order {said}, expected {asked.nonce.hex()}")
        if label.nonce == asked.answer:
            raise WireError(Reason.REPLAY, f"nonce {label.nonce.hex()} is used up")
        if asked.answer is not None:
            raise WireError(
                Reason.DUPLICATE,
                f"{label.client} has answered with {asked.answer.hex()}, and now with {label.nonce.hex()}",
            )
        return asked


class Post:
    """A client's side: takes each of the server's orders once and seals what answers it.

    The nonces of orders taken are kept in the file `taken`, where one is named, 16 bytes each; without it
    an order can be taken again after a restart. Safe to use from many threads.
    """

    def __init__(
        self,
        terms: Terms,
        client: str,
        key: "Ed25519PrivateKey",
        server: "Ed25519PublicKey",
        taken: Path | None = None,
    ):
        need_cryptography()
        self._terms, self._client, self._key, self._server = terms, client, key, server
        self._file = taken
        self._taken = _nonces(taken) if taken else set[bytes]()
        self._lock = threading.Lock()

    def take(self, message: Block, kind: int = ORDER) -> tuple[Label, memoryview]:
        """The label and the bytes of an order for this client. Raises WireError."""
        label, payload = check(
            message, kind, self._terms, {self._client: self._server}, self._client
        )
        self._find(label)
        check_digest(label, payload)
        with self._lock:
            self._find(label)
            if self._file:
                _append(self._file, label.nonce)
            self._taken.add(label.nonce)
        return label, payload

    def seal(self, order: Label, *blocks: Block, kind: int = UPDATE) -> bytes:
        """The message that takes an update's bytes back, in answer to an order."""
        nonce = secrets.token_bytes(_NONCE)
        place = (order.round, order.attempt, self._client, nonce, order.nonce)
        return b"".join((seal(_label(kind, self._terms, *place, blocks), self._key), *blocks))

    def _find(self, label: Label) -> None:
        if label.nonce in self._taken:
            raise WireError(Reason.REPLAY, f"nonce {label.nonce.hex()} is used up")


def _label(
    kind: int,
    terms: Terms,
    round: int,
    attempt: int,
    client: str,
    nonce: bytes,
    answers: bytes,
    blocks: Sequence[Block],
) -> Label:
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += memoryview(block).nbytes
    return Label(kind, terms, round, attempt, client, nonce, answers, digest.digest(), size)


def _nonces(path: Path) -> set[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); orders taken are kept there, so mend it"
        ) from None
    return {content[at : at + _NONCE] for at in range(0, len(content) - _NONCE + 1, _NONCE)}


def _append(path: Path, nonce: bytes) -> None:
    """Add a nonce for good; what a power cut left of an earlier one is written over."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with open(opened, "wb") as file:
        file.seek(os.fstat(opened).st_size // _NONCE * _NONCE)
        file.write(nonce)
        file.flush()
        os.fsync(opened)
