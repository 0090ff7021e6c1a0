"""What the instruction records of all categories have in common: parts of the world, wordings, a record."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from fedit.data.microworld.facts import Language
from fedit.data.microworld.scenes import Namer, Rng

Part = Literal["train", "dev", "test"]
PARTS: tuple[Part, ...] = ("train", "dev", "test")
Wordings = tuple[list[str], str]
"""Wordings of training, and the one that only dev and test have."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """An instruction with its one exact answer; `check` says how else an answer may be right."""

    instruction: str
    context: str
    response: str
    wording: str
    check: str = ""


@dataclass(frozen=True)
class World:
    """What a record is drawn from: one part of one world, in one language."""

    rng: Rng
    seed: int
    part: Part
    language: Language
    draw: Namer

    def any(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """Distinct ones of the choices, in random order."""
        return [choices[i] for i in self.rng.permutation(len(choices))[:count]]

    def ask(self, wordings: Wordings) -> tuple[str, str]:
        """A wording and whether training has "seen" it; a fifth of dev and test is asked in a "new" one."""
        known, held_out = wordings
        if self.part != "train" and self.rng.random() < 0.2:
            return held_out, "new"
        return self.any(known), "seen"

    def mine(self, things: Iterable[T], entity: Callable[[T], str]) -> list[T]:
        """The things whose entity is in this part of the world."""
        return [thing for thing in things if entity_part(entity(thing), self.seed) == self.part]


@cache
def entity_part(entity: str, seed: int) -> Part:
    """The one part of a world in which an entity is asked about: 55 % train, 15 % dev, 30 % test."""
    digest = hashlib.sha256(f"{seed} {entity}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 100
    return "train" if place < 55 else "dev" if place < 70 else "test"
