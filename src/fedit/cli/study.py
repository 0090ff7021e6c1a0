"""The command that compares: study."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit.cli.app import AsJson, app, calm_models
from fedit.core.errors import InputError
from fedit.printable import printable

if TYPE_CHECKING:
    from fedit.config import Study


@app.command()
def study(
    recipe: Annotated[
        Path, typer.Argument(metavar="STUDY", help="study (YAML), or its folder with --resume")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="changes, e.g. plan.federation.rounds=5"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="study folder (default runs/NAME)")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue, or add seeds or arms")
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="try the study's grid on its dev rows instead")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the runs with their samples, run nothing")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print errors only")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare base, clients alone, federations and all rows together; writes summary.json."""
    asked = _read(recipe, changes, output, resume)
    calm_models()
    if dry_run:
        _plan(asked, tune, as_json)
        return
    say = say_nothing if quiet or as_json else say_on
    try:
        found = carry_out(asked, resume, tune, say)
    except KeyboardInterrupt:
        words = ["fedit study", str(asked.folder), *(["--tune"] if tune else []), "--resume"]
        print(f"\ninterrupted; continue with: {' '.join(words)}", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    elif not quiet:
        _show(asked, found, tune)


def _read(recipe: Path, changes: list[str] | None, output: Path | None, resume: bool) -> "Study":
    from fedit.recipe import load_study

    words = list(changes or [])
    if recipe.is_dir():
        if not resume or not (recipe / "study.yaml").exists():
            raise InputError(
                f"{recipe}: is a folder; give a study, or a study folder with --resume"
            )
        output, recipe = output or recipe, recipe / "study.yaml"
    if output is not None:
        words.append(f"output={json.dumps(str(output))}")
    return load_study(recipe, words)


def carry_out(
    asked: "Study", resume: bool, tune: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run what is left of a study, or of its tuning, and return what it found."""
    from fedit.studies.lines import Lines
    from fedit.studies.study import OpenStudy
    from fedit.studies.tuning import OpenTuning

    with (OpenTuning if tune else OpenStudy)(asked, resume=resume) as opened:
        lines = Lines(opened, say)
        for done in opened.done(lines.began):
            lines.done(done)
        return opened.summarise()


def _plan(asked: "Study", tune: bool, as_json: bool) -> None:
    from fedit.recipe import grid
    from fedit.studies.jobs import plan_jobs

    folder, found = Path(asked.folder), list[dict[str, Any]]()
    for tried in grid(asked) if tune else [{}]:
        how: dict[str, Any] = {"dev": True, "seeds": asked.tune_seeds, "tried": tried}
        for job in plan_jobs(asked, folder, **(how if tune else {})).jobs:
            said = {key: getattr(job, key) for key in ("arm", "kind", "seed", "client", "samples")}
            found.append({"place": job.place.as_posix(), **said, "tried": tried})
    if as_json:
        print(json.dumps({"runs": found}, ensure_ascii=False))
        return
    for run in found:
        words = "".join(f"{key}={value} " for key, value in run["tried"].items())
        print(f"{words}{run['place']}: {run['samples']:,} samples")


def _show(asked: "Study", found: dict[str, Any], tune: bool) -> None:
    from rich.console import Console

    from fedit.studies.table import tables
    from fedit.studies.tuned import tuned_tables

    console = Console(highlight=False)
    for part in tuned_tables(asked, found) if tune else tables(found):
        console.print(part)
    name = "tune/tune.json" if tune else "summary.json"
    print(f"done: {Path(asked.folder) / name}", file=sys.stderr)


def say_on(text: str) -> None:
    """A line for a person."""
    print(printable(text), file=sys.stderr, flush=True)


def say_nothing(text: str) -> None:
    """Nothing."""
