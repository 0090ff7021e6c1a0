"""A site's limits on a piece of work: how long it may take, and how much memory the worker may have."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from fedit.config import Policy
from fedit.core.errors import FeditError
from fedit.core.messages import Failure

_GIB = 2**30


@contextmanager
def within(policy: Policy) -> Iterator[None]:
    """Break off what the main thread is at when it takes longer, or needs more memory, than is allowed.

    Raises FeditError after `policy.seconds`, and for memory that is not given beyond `policy.memory` GiB of
    the process's own (Linux; elsewhere the system may not keep to it).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    handler = signal.getsignal(signal.SIGALRM)
    try:
        if policy.memory:
            most = round(policy.memory * _GIB)
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        if policy.seconds:
            signal.signal(signal.SIGALRM, lambda *_: _late(policy))
            signal.setitimer(signal.ITIMER_REAL, policy.seconds)
        yield
    except (MemoryError, RuntimeError) as error:
        if policy.memory and _is_of_memory(str(error), error):
            raise FeditError(_too_large(policy)) from None
        raise
    finally:
        if policy.seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def explained(failure: Failure, policy: Policy) -> Failure:
    """A failure for lack of memory, told as the limit's doing where there is one."""
    if policy.memory and _is_of_memory(failure.detail):
        return replace(failure, detail=f"{_too_large(policy)} ({failure.detail})")
    return failure


def _late(policy: Policy) -> None:
    raise FeditError(
        f"policy: seconds: a round took longer than {policy.seconds:g}, the site's limit"
    )


def _too_large(policy: Policy) -> str:
    return f"policy: memory: the work needs more than {policy.memory:g} GiB, the site's limit"


def _is_of_memory(text: str, error: Exception | None = None) -> bool:
    return isinstance(error, MemoryError) or "MemoryError" in text or "allocate memory" in text
