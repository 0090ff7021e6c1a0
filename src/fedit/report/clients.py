"""What each client gains: every arm on its own categories and on the others; each model by category."""

from collections.abc import Mapping, Sequence
from typing import Literal

from fedit.report.blocks import Block, Cell, Fold, Section, Table, shaded
from fedit.report.runs import RunView
from fedit.report.summary import Answer, Pair, Sides, Summary
from fedit.report.words import line, percent

SHOWN = 60
"""Clients that the table shows at most."""

Measure = Literal["em", "f1"]


def section(
    summary: Summary, lone: Mapping[str, RunView], others: Mapping[str, RunView], by: str
) -> Section | None:
    """The matrices: clients against arms, and the first seed's models against categories."""
    blocks: list[Block] = []
    if summary.clients:
        blocks.append(matrix(summary, "em"))
    own = {c.client: c.own for c in summary.clients if c.seed in summary.seeds[:1]}
    heat = by_category(lone, others, own, by)
    if heat.rows:
        blocks.append(heat)
    if not blocks:
        return None
    if summary.clients:
        blocks.append(Fold("Clients against arms by F1", [matrix(summary, "f1")]))
    return Section(
        "clients",
        "What each owner gains",
        "“Own” are questions of the categories that the client holds, “others” those it never saw: "
        "what an owner learns alone, and what only the others can teach it.",
        blocks,
    )


def matrix(summary: Summary, measure: Measure) -> Table:
    """A row for each client of each seed, and for each arm two columns: own categories and others."""
    arms = list(dict.fromkeys(arm for client in summary.clients for arm in client.arms))
    rows, values = [], []
    for client in summary.clients[:SHOWN]:
        found = [_value(side, measure) for arm in arms for side in _sides(client.arms.get(arm))]
        holds = ", ".join(line(label, 40) for label in client.own)
        many = f" · {client.rows:,} rows" if client.rows is not None else ""
        name = line(client.client)
        if len(summary.seeds) > 1:
            name += f", seed {client.seed}"
        rows.append([Cell(name, holds + many), *(Cell(percent(value)) for value in found)])
        values.append(found)
    left = len(summary.clients) - SHOWN
    more = f" (the first {SHOWN}; {left} more are in summary.json)" if left > 0 else ""
    return Table(
        f"{measure.upper()} % on own and other categories{more}",
        ["Client", *(word for _ in arms for word in ("own", "others"))],
        shaded(rows, values),
        groups=[("", 1), *((line(arm), 2) for arm in arms)],
    )


def _sides(sides: Sides | None) -> tuple[Pair | None, Pair | None]:
    return (sides.own, sides.others) if sides else (None, None)


def _value(pair: Pair | None, measure: Measure) -> float | None:
    found = getattr(pair, measure, None)
    return found if found is None else float(found)


def by_category(
    lone: Mapping[str, RunView],
    others: Mapping[str, RunView],
    own: Mapping[str, Sequence[str]],
    by: str,
) -> Table:
    """EM of single models on every category; what a lone client holds itself is outlined."""
    models = {
        name: run.scores.items for name, run in (*lone.items(), *others.items()) if run.scores
    }
    found = {name: matches(grouped(items, by)) for name, items in models.items()}
    categories = list(dict.fromkeys(label for scores in found.values() for label in scores))
    rows = [
        [
            Cell(line(name), "alone" if name in lone else ""),
            *(
                Cell(percent(scores.get(label), 0), mark=label in own.get(name, ()))
                for label in categories
            ),
        ]
        for name, scores in found.items()
    ]
    values = [[scores.get(label) for label in categories] for scores in found.values()]
    heads = ["Model", *(line(label) for label in categories)]
    caption = (
        f"EM % of single models by {line(by)}, first seed; outlined: what the client itself holds"
    )
    return Table(caption, heads, shaded(rows, values))


def grouped(items: Sequence[Answer], by: str) -> dict[str, list[Answer]]:
    """Items by label, labels in order."""
    found: dict[str, list[Answer]] = {}
    for item in sorted(items, key=lambda item: item.labels.get(by, "all")):
        found.setdefault(item.labels.get(by, "all"), []).append(item)
    return found


def matches(groups: Mapping[str, Sequence[Answer]]) -> dict[str, float]:
    """Exact match of each group."""
    return {name: sum(item.correct for item in own) / len(own) for name, own in groups.items()}
