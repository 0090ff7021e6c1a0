"""What tuning found, as a table and as lines to paste."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from fedit.config import Study
from fedit.studies.claims import number, percent
from fedit.studies.table import shown, titled
from fedit.studies.tuning import paste


def tuned_tables(study: Study, found: dict[str, Any]) -> Iterator[RenderableType]:
    """One table an arm, a warning where the best value is at the grid's edge, and lines for `arms:`."""
    for part in found["arms"]:
        own = ("own EM %", "own F1 %", "own loss") if "own" in part["candidates"][0] else ()
        heads = ("EM %", "F1 %", "loss", *own)
        table = titled(f"{part['arm']} on {found['items']:,} dev items", heads)
        for one in part["candidates"]:
            best = " ←" if one["changes"] == part["best"] else ""
            table.add_row(
                shown(_words(one["changes"]) + best),
                percent(one["em"]),
                percent(one["f1"]),
                number(one["loss"], 3),
                *(percent(one["own"][measure]) for measure in ("em", "f1") if own),
                *(number(one["own"]["loss"], 3) for _ in own[:1]),
            )
        yield table
        for key in part["edge"]:
            yield shown(
                f"{part['arm']}: the best {key}, {part['best'][key]}, is at the edge of the grid; widen it"
            )
    yield shown("\n".join(["for the study:", "arms:", *paste(study, found)]))


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in changes.items())
