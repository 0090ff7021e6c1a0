"""Ed25519 keys of clients and of the server, as PEM files."""

import hashlib
import os
import stat
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fedit.core.errors import InputError, brief

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )


def need_cryptography() -> None:
    """Raises InputError naming the extra to install where cryptography is missing."""
    if find_spec("cryptography") is None:
        raise InputError("sealed messages need cryptography; pip install 'fedit[federation]'")


def new_key() -> "Ed25519PrivateKey":
    """A new key from the operating system's randomness."""
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def save_key(key: "Ed25519PrivateKey", path: Path) -> None:
    """Write a private key that only its owner can read (PKCS 8, PEM), where there is no file yet.

    Raises InputError.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)


def save_public_key(key: "Ed25519PublicKey", path: Path) -> None:
    """Write a public key (PEM), where there is no file yet. Raises InputError."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    _write(path, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)


def load_key(path: Path) -> "Ed25519PrivateKey":
    """A private key, whose file nobody but its owner may read. Raises InputError."""
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = _read(path)
    if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        raise InputError(
            f"key {path}: others may use the file (mode {mode:o}); chmod 600 it, and make a new key if "
            "somebody may have read it"
        )
    remedy, load = "make a new one", partial(load_pem_private_key, text, password=None)
    key = _parsed(path, load, "private key in PEM without a password", remedy)
    if not isinstance(key, Ed25519PrivateKey):
        raise _other(path, key, remedy)
    return key


def load_public_key(path: Path) -> "Ed25519PublicKey":
    """A public key. Raises InputError."""
    need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    remedy, load = "ask its owner for it again", partial(load_pem_public_key, _read(path))
    key = _parsed(path, load, "public key in PEM", remedy)
    if not isinstance(key, Ed25519PublicKey):
        raise _other(path, key, remedy)
    return key


def fingerprint(key: "Ed25519PublicKey") -> str:
    """The first 16 hex digits of the SHA-256 of a public key's 32 bytes: to compare by eye."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _parsed(path: Path, load: Callable[[], object], what: str, remedy: str) -> object:
    try:
        return load()
    except Exception as error:  # many kinds, by what the file holds instead
        raise InputError(f"key {path}: holds no {what} ({brief(error)}); {remedy}") from None


def _other(path: Path, key: object, remedy: str) -> InputError:
    return InputError(f"key {path}: is no Ed25519 key but {type(key).__name__}; {remedy}")


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise InputError(
            f"key {path}: there is a file already; move it away, or choose another name"
        ) from None
    except OSError as error:
        raise InputError(
            f"key {path}: cannot be written ({error.strerror}); choose another place"
        ) from None
    with open(opened, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(opened)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"key {path}: cannot be read ({error.strerror}); mend the path, or make a key"
        ) from None
