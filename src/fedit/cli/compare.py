"""The command that compares algorithms: compare."""

import json
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit.cli.app import AsJson, Recipe, Words, app, calm_models, read_plan
from fedit.cli.study import carry_out, say_nothing, say_on
from fedit.core.errors import InputError

if TYPE_CHECKING:
    from fedit.config import Study


@app.command()
def compare(
    recipe: Recipe,
    changes: Words = None,
    algorithms: Annotated[
        str,
        typer.Option(help="names, e.g. fedavg,fedprox; others are set against the first"),
    ] = "fedavg,fedprox,fedadam",
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds, counted from 0")] = 3,
    rates: Annotated[
        str | None,
        typer.Option(help="values of local.lr to try for each on dev rows first, e.g. 1e-3,3e-3"),
    ] = None,
    dev: Annotated[
        str | None, typer.Option(help="dev rows, as a change of the plan, e.g. data.test_split=dev")
    ] = None,
    personal: Annotated[
        bool, typer.Option("--personal", help="score every client with its own model, too")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="runs at once")] = 2,
    output: Annotated[Path | None, typer.Option(help="folder (default runs/NAME-compare)")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue, or add algorithms or seeds")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print errors only")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe with several algorithms: same data, start and budget; a table with intervals."""
    plan = read_plan(recipe, changes)
    calm_models()
    from fedit.studies.versus import tuned_study, versus

    names = [name.strip() for name in algorithms.split(",") if name.strip()]
    folder = str(output or f"runs/{plan.name}-compare")
    tried = _numbers(rates)
    asked = versus(
        plan,
        names,
        seeds,
        rates=tried,
        dev=dev,
        personal=personal,
        workers=workers,
        output=folder,
    )
    say = say_nothing if quiet or as_json else say_on
    try:
        if asked.tune:
            asked = tuned_study(asked, carry_out(asked, resume, True, say))
        found = carry_out(asked, resume, False, say)
    except KeyboardInterrupt:
        print("\ninterrupted; continue with the same command and --resume", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    elif not quiet:
        _show(asked, found)


def _numbers(words: str | None) -> list[float]:
    try:
        return [float(word) for word in words.split(",")] if words else []
    except ValueError:
        raise InputError(
            f"--rates {words}: give numbers with commas between, e.g. 1e-3,3e-3"
        ) from None


def _show(asked: "Study", found: dict[str, Any]) -> None:
    from rich.console import Console

    from fedit.studies.table import label_tables, personal_tables, sentences, shown
    from fedit.studies.versus import versus_tables

    console = Console(highlight=False)
    parts = (versus_tables(found), label_tables(found), personal_tables(found))
    for part in (*chain.from_iterable(parts), *map(shown, sentences(found))):
        console.print(part)
    print(f"done: {Path(asked.folder) / 'summary.json'}", file=sys.stderr)
