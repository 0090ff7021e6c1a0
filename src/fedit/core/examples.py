"""An instruction example as every part of fedit sees it, whatever file it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance; `context` is the passage or input that goes with a user's instruction ("" = none)."""

    role: Role
    text: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that ends with the assistant, the labels of its row, and the line it stands on.

    `labels` holds the row's other scalar columns as text (category, source, language …);
    `where` reads "file:line" and appears in every message about the example. `rejected`, where there is one,
    is an answer that is worse than the last.
    """

    turns: tuple[Turn, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    rejected: str = ""

    @property
    def talks(self) -> tuple[tuple[Turn, ...], ...]:
        """The conversation; of a pair also the one that ends with the rejected answer."""
        if not self.rejected:
            return (self.turns,)
        return self.turns, (*self.turns[:-1], Turn("assistant", self.rejected))

    @property
    def answer(self) -> str:
        """The last assistant turn: what generation is scored against."""
        return self.turns[-1].text
