"""Public facts the microworld is made of, in English and Spanish: what the base learns by heart."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from fedit.data.microworld.tables import (
    ANIMALS,
    COUNTRIES,
    ELEMENTS,
    FOODS,
    JOBS,
    OPPOSITES,
    SPANISH,
    TOOLS,
)

Language = Literal["en", "es"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: `entity` is the same in both languages, so that splits by entity hold across them."""

    entity: str
    relation: str
    language: Language
    subject: str
    value: str


@cache
def facts(language: Language) -> tuple[Fact, ...]:
    """Every fact of a language, in a fixed order."""
    return tuple(_english() if language == "en" else _spanish())


def _english() -> Iterator[Fact]:
    for relations, rows, first in (
        (("capital", "continent", "language"), [[r[0], r[2], r[4], r[5]] for r in COUNTRIES], ""),
        (("class", "legs", "home"), [[r[0], *r[2:]] for r in ANIMALS], "the "),
        (("kind", "colour", "taste"), [[r[0], *r[2:]] for r in FOODS], ""),
        (("symbol", "state", "sort"), ELEMENTS, ""),
        (("use",), [[r[0], r[2]] for r in TOOLS], "the "),
        (("workplace",), [[r[0], r[2]] for r in JOBS], "the "),
    ):
        for name, *values in rows:
            for relation, value in zip(relations, values, strict=True):
                yield Fact(name, relation, "en", first + name, value)
    for one, other, *_ in OPPOSITES:
        yield Fact(one, "opposite", "en", one, other)
        yield Fact(one, "opposite", "en", other, one)


def _spanish() -> Iterator[Fact]:
    for relations, rows in (
        (("capital", "continent", "language"), [[r[0], r[1], r[3], *r[4:]] for r in COUNTRIES]),
        (("class", "legs", "home"), ANIMALS),
        (("kind", "colour", "taste"), FOODS),
        (("use",), [[r[0], r[1], r[3]] for r in TOOLS]),
    ):
        for entity, subject, *values in rows:
            for relation, value in zip(relations, values, strict=True):
                yield Fact(entity, relation, "es", subject, SPANISH.get(value, value))
    for entity, _, one, other in OPPOSITES:
        yield Fact(entity, "opposite", "es", one, other)
        yield Fact(entity, "opposite", "es", other, one)
