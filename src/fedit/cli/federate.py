"""The commands on one federation: run · partition · evaluate · export."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedit.cli.app import AsJson, Recipe, Words, app, calm_libraries, calm_models, read_plan
from fedit.cli.tables import print_personal, print_scores
from fedit.core.errors import InputError
from fedit.printable import printable

if TYPE_CHECKING:
    from fedit.config import Plan


Cluster = Annotated[
    int, typer.Option(min=0, metavar="K", help="IFCA: which of the global models, from 0")
]


@app.command()
def run(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="recipe, or run folder with --resume")
    ],
    changes: Words = None,
    output: Annotated[Path | None, typer.Option(help="run folder (default runs/NAME)")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue the run in its folder")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check plan and data files, load nothing")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print errors only")] = False,
    as_json: AsJson = False,
) -> None:
    """Federate as the recipe says; writes plan, journal, checkpoints and the adapter."""
    from fedit.recipe import dump_plan

    plan = read_plan(recipe, changes, output, resume)
    if dry_run:
        from fedit.data.sources import check_source

        for source in filter(None, (plan.data.train, plan.data.test)):
            check_source(source)
        print(_arithmetic(plan) + dump_plan(plan), end="")
        return
    calm_models()
    try:
        _run(plan, resume, quiet, as_json)
    except KeyboardInterrupt:
        print(f"\ninterrupted; continue with: fedit run --resume {plan.folder}", file=sys.stderr)
        raise typer.Exit(130) from None


def _run(plan: "Plan", resume: bool, quiet: bool, as_json: bool) -> None:
    if not (quiet or as_json):
        print("loading …", file=sys.stderr)
    from fedit.progress import Watched, display
    from fedit.runner import Run

    shown = display(quiet=quiet, as_json=as_json)
    with Run(plan, resume=resume) as opened, shown:
        shown.opened(opened)
        told = len(opened.notes)
        for done in opened.rounds(lambda engine: Watched(engine, shown)):
            shown.finished(done)
    if not (quiet or as_json):
        for note in opened.notes[told:]:
            print(f"note: {printable(note)}", file=sys.stderr)
        print(f"done: {Path(plan.folder) / 'adapter'}", file=sys.stderr)


@app.command()
def partition(
    recipe: Recipe,
    changes: Words = None,
    by: Annotated[str | None, typer.Option(help="column to measure skew over")] = None,
    figure: Annotated[Path | None, typer.Option(help="picture to draw (.png, .svg, .pdf)")] = None,
    as_json: AsJson = False,
) -> None:
    """Share the data out to clients as the recipe says; measure and draw how unlike they are."""
    from fedit.partitioned import describe, draw, lines

    calm_libraries()
    found = describe(read_plan(recipe, changes), by)
    if figure is not None:
        draw(found, figure)
        print(f"wrote {figure}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        print("\n".join(lines(found)))


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="run folder")],
    data: Annotated[
        str | None, typer.Option(help="instruction data (default: held-out rows)")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="score the first rows only")] = None,
    predictions: Annotated[Path | None, typer.Option(help="write every answer (JSONL)")] = None,
    personal: Annotated[
        bool, typer.Option("--personal", help="score every client with its own model")
    ] = False,
    tune: Annotated[
        int | None,
        typer.Option(min=1, metavar="STEPS", help="--personal: tune the received model first"),
    ] = None,
    cluster: Cluster = 0,
    as_json: AsJson = False,
) -> None:
    """Score a run's adapter: loss per token, exact match and token F1, overall and by category."""
    _refuse(
        personal,
        tune,
        {"--data": data, "--predictions": predictions, "--cluster": cluster or None},
    )
    calm_models()
    if not as_json:
        print("loading and scoring …", file=sys.stderr)
    if personal:
        from fedit.personal import personal as score_clients

        result, show = score_clients(folder, limit=limit, tune=tune), print_personal
    else:
        from fedit.score import score

        result = score(folder, data, limit=limit, predictions=predictions, cluster=cluster)
        show = print_scores
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show(result)


def _refuse(personal: bool, tune: int | None, others: dict[str, object]) -> None:
    """Options that do not go together."""
    if tune is not None and not personal:
        raise InputError("--tune: fits the model to each client, so it needs --personal beside it")
    given = [name for name, value in others.items() if value is not None]
    if personal and given:
        raise InputError(
            f"{given[0]}: does not go with --personal, which scores the run's own rows; leave one out"
        )


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="run folder")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="new folder for the model")],
    cluster: Cluster = 0,
) -> None:
    """Merge a run's adapter into its base and write a full model with a model card."""
    from fedit.export import export as export_run

    calm_models()
    export_run(folder, target, cluster)
    print(f"wrote {target}", file=sys.stderr)


def _arithmetic(plan: "Plan") -> str:
    """What the plan's shares come to, where the number of clients is known from the plan alone."""
    from fedit.core.amounts import part_of

    clients = getattr(plan.partition, "clients", None)
    if clients is None:
        return ""
    cohort = part_of(plan.federation.cohort, clients)
    needed = part_of(plan.federation.minimum, cohort, up=True)
    return f"# {cohort} of {clients} clients a round, at least {needed} must reply\n"
