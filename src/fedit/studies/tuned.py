"""What tuning found, as a table and as lines to paste."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from fedit.config import Study
from fedit.studies.claims import number, percent
from fedit.studies.table import shown, titled
from fedit.studies.tuning import paste


def tuned_tables(study: Study, found: dict[str, Any]) -> Iterator[RenderableType]:
    """A table an arm, another for own models, a warning at the grid's edge, and lines for `arms:`."""
    for part in found["arms"]:
        title = f"{shown(part['arm'])} on {found['items']:,} dev items"
        yield _scores(part, title, part["candidates"], "")
        if "own" in part["candidates"][0]:
            theirs = [{**one["own"], "changes": one["changes"]} for one in part["candidates"]]
            yield _scores(
                part, f"{shown(part['arm'])}, clients' own models and rows", theirs, "own "
            )
        for key in part["edge"]:
            yield shown(
                f"{part['arm']}: the best {key}, {part['best'][key]}, is at the edge of the grid; widen it"
            )
    yield shown("\n".join(["for the study:", "arms:", *paste(study, found)]))


def _scores(
    part: dict[str, Any], title: str, candidates: list[dict[str, Any]], whose: str
) -> Table:
    """A row for each value that was tried; an arrow at the one that was chosen."""
    table = titled(title, [whose + name for name in ("EM %", "F1 %", "loss")])
    for one in candidates:
        best = " ←" if one["changes"] == part["best"] else ""
        scores = percent(one["em"]), percent(one["f1"]), number(one["loss"], 3)
        table.add_row(shown(_words(one["changes"]) + best), *scores)
    return table


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in changes.items())
