"""What a page is made of: sections of tables, charts, paragraphs and answers; values only, no HTML."""

from dataclasses import dataclass, field
from typing import Literal

from fedit.report.words import finite, interval, percent


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller second part, a shade or a bar in [0, 1], whether it is outlined."""

    text: str = ""
    sub: str = ""
    shade: float | None = None
    bar: tuple[float, float, float] | None = None
    mark: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows; the columns named in `words` are set to the left."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    words: frozenset[int] = frozenset({0})
    groups: list[tuple[str, int]] = field(default_factory=list)
    half: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Chart:
    """A drawing (SVG) with its caption, and the same numbers as a table."""

    svg: str
    caption: str
    table: Table
    wide: bool = False
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Note:
    """A paragraph; a warning stands out."""

    text: str
    warning: bool = False
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Code:
    """Text shown as it is, behind a heading that opens it."""

    title: str
    text: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True)
class Fold:
    """Tables behind a heading that opens them."""

    title: str
    tables: list[Table]
    kind: Literal["fold"] = "fold"


@dataclass(frozen=True)
class Said:
    """What one model answered."""

    arm: str
    answer: str
    correct: bool
    f1: float


@dataclass(frozen=True)
class Card:
    """One question with its context, reference and every model's answer."""

    category: str
    where: str
    question: str
    context: str
    reference: str
    said: list[Said]


@dataclass(frozen=True)
class Answers:
    """Cards, and the categories they may be filtered by."""

    categories: list[str]
    cards: list[Card]
    kind: Literal["answers"] = "answers"


Block = Table | Chart | Note | Code | Fold | Answers


@dataclass(frozen=True)
class Section:
    """A heading, what it shows in a sentence, and its blocks."""

    id: str
    title: str
    intro: str
    blocks: list[Block]


@dataclass(frozen=True)
class Page:
    """A whole report: name, headline, sentences below it, facts in a line, warnings, sections."""

    name: str
    headline: str
    lead: list[str]
    facts: list[str]
    warnings: list[str]
    terms: list[tuple[str, str]]
    sections: list[Section]


TERMS = [
    (
        "EM",
        "exact match: the share of answers that agree with the reference word for word; capitals, "
        "punctuation and articles do not count.",
    ),
    (
        "F1",
        "the share of words that answer and reference have in common; a partly right answer gets a "
        "part of the credit.",
    ),
    (
        "Loss",
        "how surprised the model is by the reference, in nats a token; lower is better.",
    ),
    (
        "Interval",
        "in brackets or small type: where the value lies, as far as 95 % confidence over questions "
        "and seeds can tell; where two ranges overlap widely, read no winner into them.",
    ),
]
"""What the measures mean, for readers who do not work with them."""


def share(mean: float | None, low: float | None = None, high: float | None = None) -> Cell:
    """A share in per cent, its interval beside it, and both as a bar."""
    if mean is None or not finite(mean):
        return Cell("–")
    if low is None or high is None or not finite(low + high):
        return Cell(percent(mean), bar=(mean, mean, mean))
    return Cell(percent(mean), interval(low, high), bar=(low, mean, high))


def shaded(rows: list[list[Cell]], values: list[list[float | None]]) -> list[list[Cell]]:
    """The rows, their first cell aside, shaded by `values` from none to the largest."""
    most = (
        max((v for row in values for v in row if v is not None and finite(v)), default=0.0) or 1.0
    )
    return [
        [
            row[0],
            *(
                Cell(
                    cell.text,
                    cell.sub,
                    None if value is None or not finite(value) else max(0.0, value / most),
                    mark=cell.mark,
                )
                for cell, value in zip(row[1:], own, strict=True)
            ),
        ]
        for row, own in zip(rows, values, strict=True)
    ]
