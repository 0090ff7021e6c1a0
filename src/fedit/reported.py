"""`fedit report`: reads runs or a study, and writes the page about them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fedit.config import Plan
from fedit.core.errors import FeditError, InputError
from fedit.corpus import read_data
from fedit.files import write_atomically
from fedit.partitioned import describe
from fedit.report import comparison, page, studies
from fedit.report.holdings import Holdings
from fedit.report.runs import RunView, named, read_run


def report(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page about one study, or about one or several runs; where it was written.

    Without `output` it is report.html in the folder, for several runs in the working folder. Only a page
    of fedit's own is overwritten. Raises InputError.
    """
    if not folders:
        raise InputError("report: no folder given; give the folder of a run or of a study")
    target = output or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    if len(folders) == 1 and studies.is_study(folders[0]):
        study = studies.read_study(folders[0])
        made = studies.page(study, *_held(study.main()))
    else:
        for folder in folders:
            if studies.is_study(folder):
                raise InputError(f"{folder}: is a study; give it alone, or only runs")
        runs = named([read_run(folder) for folder in dict.fromkeys(folders)])
        made = comparison.page(runs, *_held(runs[0]))
    _write(target, page.render(made))
    return target


def _held(run: RunView | None) -> tuple[Holdings, str | None, str]:
    """Rows by client and label, the label, and a word on them; sizes only where the data has gone."""
    if run is None:
        return {}, None, ""
    known = run.environment.get("clients")
    sizes = {
        str(client): {"rows": rows}
        for client, rows in (known.items() if isinstance(known, dict) else ())
        if isinstance(rows, int)
    }
    if run.plan is None:
        return sizes, None, "The plan cannot be read, so only the clients' sizes are shown."
    try:
        return _described(run.plan, run.environment.get("data"))
    except (FeditError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        return sizes, None, f"Only the clients' sizes are shown; categories need the data: {reason}"


def _described(plan: Plan, hashes: object) -> tuple[Holdings, str | None, str]:
    """The partition made anew from the data. Raises InputError where that is not the run's any more."""
    if read_data(plan).hashes != hashes:
        raise InputError("it is not the data of the run any more")
    division = describe(plan)
    names = division.parts.names
    held = {
        f"{client} {names[client]}" if names[client] != client else client: dict(
            Counter(division.labels[row] for row in rows)
        )
        for client, rows in division.parts.rows.items()
    }
    return held, division.column, f"How unlike the clients are: {division.skew}."


def _write(target: Path, html: str) -> None:
    """Put the page where it belongs. Raises InputError where it may not or cannot go there."""
    if target.is_dir():
        raise InputError(f"--output {target}: is a folder; give the name of a file in it")
    try:
        if target.exists() and target.stat().st_size:
            with open(target, encoding="utf-8", errors="replace") as file:
                if page.MARK not in file.read(2000):
                    raise InputError(
                        f"--output {target}: exists and is no report of fedit; choose another name"
                    )
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, html.encode())
    except OSError as error:
        raise InputError(
            f"--output {target}: cannot be written ({error.strerror}); choose another"
        ) from None
