"""A summary as tables for a terminal of eighty columns."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from fedit.printable import printable
from fedit.studies.claims import headline, number, ordering, percent

Summary = dict[str, Any]

WIDTH = 78
"""Columns that a table has."""

_NAME = 8  # columns that names have at least

FEW = 50
"""Items below which intervals from resampling say too much: without a right answer they have no width."""


def tables(summary: Summary) -> Iterator[RenderableType]:
    """The arms, EM by label, the best and worst client alone, and what may be said."""
    yield arms_table(summary)
    yield from label_tables(summary)
    yield from personal_tables(summary)
    yield from map(shown, [*spread_lines(summary), *sentences(summary)])


def label_tables(summary: Summary) -> Iterator[Table]:
    """EM by the labels of which there are several."""
    for label in dict.fromkeys(
        group.partition("/")[0] for arm in summary["arms"] for group in arm["metrics"]
    ):
        groups = [g for g in summary["arms"][0]["metrics"] if g.startswith(f"{label}/")]
        if len(groups) > 1:
            longest = max(map(len, groups)) - len(f"{label}/")
            room = WIDTH - 1 - max(_NAME, longest)
            for arms in _side_by_side(summary["arms"], room):
                yield label_table(arms, label, groups)


def arms_table(summary: Summary) -> Table:
    """One row an arm: EM and F1 in per cent, loss in nats a token, with 95 % intervals."""
    seeds = len(summary["seeds"])
    title = f"{summary['items']:,} items, {seeds} seed{'s' * (seeds != 1)}, 95 % intervals"
    table = titled(title, ("EM %", "F1 %", "loss", "samples"))
    for arm in summary["arms"]:
        scores = arm["metrics"]["all"]
        table.add_row(
            shown(arm["name"]),
            percent(scores["em"]),
            percent(scores["f1"]),
            number(scores["loss"], 2),
            f"{arm['samples']:,}",
        )
    return table


def _side_by_side(arms: Sequence[Summary], room: int) -> Iterator[list[Summary]]:
    """The arms in parts whose names have room beside each other."""
    part, used = list[Summary](), 0
    for arm in arms:
        width = max(5, len(arm["name"])) + 2
        if part and used + width > room:
            yield part
            part, used = [], 0
        part.append(arm)
        used += width
    yield part


def label_table(arms: Sequence[Summary], label: str, groups: Sequence[str]) -> Table:
    """One row a label, one column an arm: EM in per cent."""
    table = titled(f"EM % by {shown(label)}", [shown(arm["name"]) for arm in arms])
    for group in groups:
        means = [arm["metrics"][group]["em"]["mean"] for arm in arms]
        table.add_row(shown(group.partition("/")[2]), *(f"{100 * mean:.1f}" for mean in means))
    return table


def personal_tables(summary: Summary) -> Iterator[Table]:
    """EM and loss of clients' own models on their own rows and on the test's, by arm and steps."""
    parts = summary.get("personal", [])
    for rows, word in (("own_rows", "own"), ("test_rows", "test")):
        known = [(part, part[rows]) for part in parts if part.get(rows)]
        for measure, name in (("em", "EM %"), ("loss", "loss")) if known else ():
            whose = f"{known[0][1]['clients']} clients' models, {word} rows"
            heads = ("own models", f"less {shown(parts[0]['arm'])}'s", "worst 10 %")
            table = titled(f"{name}, {whose}, 95 % intervals", heads)
            for part, scored in known:
                table.add_row(_model_name(part), *_cells(scored, measure))
            yield table


def _model_name(part: Summary) -> str:
    steps = part["tune"]
    return shown(part["arm"]) + (f" +{steps} step{'s' * (steps > 1)}" if steps else "")


def _cells(scored: Summary, measure: str) -> tuple[str, str, str]:
    own, gain = scored["own_model"], scored["gain"].get(measure)
    even = own["fairness"].get("exact_match" if measure == "em" else measure)
    if measure == "em":
        say, worst = percent, even and f"{100 * even['worst']:.1f}"
    else:
        say, worst = _nats, even and f"{even['worst']:.2f}"
    return say(own[measure]), say(gain, sign=True) if gain else "–", worst or "–"


def _nats(estimate: dict[str, float | None], *, unit: str = "", sign: bool = False) -> str:
    return number(estimate, 2, unit=unit, sign=sign)


def spread_lines(summary: Summary) -> list[str]:
    """The best and the worst run of arms with several runs a seed."""
    lines = []
    for arm, by in summary["spread"].items():
        ends = [
            f"{end} {100 * by['em'][end]['value']:.1f} (seed {by['em'][end]['seed']}, "
            f"{by['em'][end]['client']})"
            for end in ("best", "worst")
        ]
        lines.append(f"{arm} EM: {', '.join(ends)}")
    return lines


def sentences(summary: Summary) -> list[str]:
    """The headline, and the order of the arms as far as the intervals show it."""
    lines = [line for line in (headline(summary), *ordering(summary)) if line]
    if summary["items"] < FEW:
        lines.append(
            f"{summary['items']} items are few: intervals from resampling are then too narrow"
        )
    if len(summary["seeds"]) == 1:
        lines.append("one seed: the intervals say nothing of other seeds")
    return lines


def shown(text: str) -> str:
    """A text from the data or the plan, safe on a terminal and with rich."""
    return escape(printable(text))


def titled(title: str, headings: Sequence[str]) -> Table:
    """A table whose first column folds and whose numbers stand on the right."""
    table = Table(title=title, box=SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold", min_width=_NAME)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold", min_width=5)
    return table
