"""The command that says what a run will take: estimate."""

import json
import sys
import time
from typing import Annotated

import typer

from fedit.cli.app import AsJson, Recipe, Words, app, calm_models, read_plan
from fedit.printable import printable


@app.command()
def estimate(
    recipe: Recipe,
    changes: Words = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate/--no-calibrate", help="time real steps (loads the weights)"),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what a run will take, before it: parameters, memory, tokens, bytes and hours."""
    plan = read_plan(recipe, changes)
    calm_models()
    if not as_json:
        print("counting …" if not calibrate else "counting and timing …", file=sys.stderr)
    began = time.perf_counter()
    from fedit.estimating.estimate import estimate as take

    found = take(plan, calibrated=calibrate, libraries=time.perf_counter() - began)
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    from rich.console import Console

    from fedit.estimating.table import table

    for note in found.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    Console(highlight=False).print(table(found))
