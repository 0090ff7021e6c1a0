"""Answers side by side: a few questions of each category by a fixed rule, one column a model."""

from collections.abc import Mapping, Sequence

from fedit.report.blocks import Answers, Block, Card, Note, Said, Section
from fedit.report.clients import grouped
from fedit.report.summary import Answer
from fedit.report.words import line, visible

LONGEST = 1200
"""Characters of a text that a card shows."""

CATEGORIES = 40
"""Categories that are shown at most."""


def section(
    by_arm: Mapping[str, Sequence[Answer]], judge: str, by: str, which: str
) -> Section | None:
    """Cards of questions that every arm answered; `judge` is the arm whose answers choose them."""
    tables = {arm: {_key(item): item for item in items} for arm, items in by_arm.items() if items}
    if judge not in tables:
        return None
    shared = [
        item
        for key, item in tables[judge].items()
        if all(key in answered for answered in tables.values())
    ]
    chosen = choose(shared, by)
    cards = [
        Card(
            line(item.labels.get(by, "all")),
            line(item.where, 120),
            visible(item.question, LONGEST),
            visible(item.context, LONGEST),
            visible(item.reference, LONGEST),
            [_said(arm, answered[_key(item)]) for arm, answered in tables.items()],
        )
        for item in chosen
    ]
    blocks: list[Block] = [Answers(list(dict.fromkeys(card.category for card in cards)), cards)]
    if not cards:
        blocks = [Note("The models were not asked the same questions, so none are shown.")]
    return Section(
        "answers",
        "Answers side by side",
        f"Of each category the first question that {line(judge)} answered right and the first that it "
        f"got wrong; the first two where all are alike. {which}".strip(),
        blocks,
    )


def choose(items: Sequence[Answer], by: str) -> list[Answer]:
    """Of each label the first right and the first wrong item, else the first two; labels in order."""
    chosen: list[Answer] = []
    for own in list(grouped(items, by).values())[:CATEGORIES]:
        right = next((item for item in own if item.correct), None)
        wrong = next((item for item in own if not item.correct), None)
        chosen += own[:2] if right is None or wrong is None else [right, wrong]
    return chosen


def _key(item: Answer) -> tuple[str, str, str]:
    return item.where, item.question, item.reference


def _said(arm: str, item: Answer) -> Said:
    return Said(line(arm), visible(item.answer, LONGEST), item.correct, item.f1)
