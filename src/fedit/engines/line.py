"""What carries messages between a server and its sites, whatever it is. Loads no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Tell = Callable[[str, str], None]
"""(site, what happened): joined, gone, refused …, for whoever watches."""


@dataclass(frozen=True, slots=True)
class News:
    """What a line tells: an answer of a site, or that a message was lost and why.

    `worker` says that it was the site's worker that broke off, and not the line.
    """

    site: str
    number: int
    answer: bytes | None
    why: str = ""
    worker: bool = False


class Line(Protocol):
    """Carries messages to sites and back; it mends itself."""

    def present(self) -> frozenset[str]:
        """The sites that can be asked now."""
        ...

    def post(self, site: str, number: int, message: bytes, seconds: float) -> None:
        """Have a message carried; news of this number will tell what came of it."""
        ...

    def next(self, seconds: float) -> News | None:
        """The next news, None where there is none in so many seconds."""
        ...

    def close(self) -> None: ...
