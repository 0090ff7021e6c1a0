"""Reaching a Ray cluster, or starting Ray on this machine."""

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from fedit.core.errors import InputError, brief

_REACHED_WITHIN = 10.0  # seconds; Ray itself tries for many minutes


def need_ray() -> None:
    """Raises InputError naming the extra to install where Ray is missing."""
    if find_spec("ray") is None:
        raise InputError("engine ray needs ray; pip install 'fedit[ray]'")


def connect(ray: Any, address: str | None) -> None:
    """Join the cluster at `address`, "auto" for the one here; None starts one. Raises InputError."""
    if address and address != "auto":
        _reach(address.removeprefix("ray://"))
    try:
        with _own_sigterm():
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else {"include_dashboard": False}),
            )
    except Exception as error:  # many kinds: no cluster, another version, a missing part of Ray
        raise InputError(
            f"engine.address: no Ray cluster can be joined at {address or 'this machine'} "
            f"({brief(error)}); give the host:port that `ray start --head` tells, or leave it out"
        ) from None


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_WITHIN).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"engine.address: {address} cannot be reached ({error}); give the host:port that "
            "`ray start --head` tells, or leave it out to use this machine alone"
        ) from None


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does here, which Ray replaces."""
    heard = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, heard)
