"""The items of a run, kept in its folder as `scores.json`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedit.core.errors import InputError
from fedit.evaluate.items import Item, from_json, to_json
from fedit.files import write_atomically

NAME = "scores.json"


@dataclass(frozen=True)
class Scores:
    """After which round, in how many seconds, and the items themselves."""

    round: int
    seconds: float
    items: Sequence[Item]


def write_scores(folder: Path, scores: Scores) -> None:
    """Put the scores into a run's folder, atomically."""
    items = [to_json(item) for item in scores.items]
    values = {"round": scores.round, "seconds": scores.seconds, "items": items}
    write_atomically(folder / NAME, json.dumps(values, ensure_ascii=False).encode())


def read_scores(folder: Path) -> Scores | None:
    """The scores in a run's folder, None where there are none. Raises InputError for a damaged file."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_bytes())
        items = [from_json(item) for item in values["items"]]
        return Scores(int(values["round"]), float(values["seconds"]), items)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {error}); delete it, and the run is scored anew"
        ) from None
