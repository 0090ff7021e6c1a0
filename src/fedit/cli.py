"""The command line: run · partition · evaluate · export."""

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit.core.errors import FeditError, InputError
from fedit.printable import printable

if TYPE_CHECKING:
    from fedit.config import Plan

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="recipe (YAML)")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="changes, e.g. federation.rounds=5"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("fedit"))
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Federated instruction tuning: many owners of private instructions tune one shared model."""


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
        bool, typer.Option("--dry-run", help="print the plan, load nothing")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print errors only")] = False,
    as_json: AsJson = False,
) -> None:
    """Federate as the recipe says; writes plan, journal, checkpoints and the adapter."""
    from fedit.recipe import dump_plan

    plan = _plan(recipe, changes, output, resume)
    if dry_run:
        print(_arithmetic(plan) + dump_plan(plan), end="")
        return
    _calm_models()
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
        for done in opened.rounds(lambda engine: Watched(engine, shown)):
            shown.finished(done)
    if not (quiet or as_json):
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

    _calm_libraries()
    found = describe(_plan(recipe, changes), by)
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
    as_json: AsJson = False,
) -> None:
    """Score a run's adapter: loss per token, exact match and token F1, overall and by category."""
    _calm_models()
    if not as_json:
        print("loading and scoring …", file=sys.stderr)
    from fedit.score import score

    result = score(folder, data, limit=limit, predictions=predictions)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _table(result)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="run folder")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="new folder for the model")],
) -> None:
    """Merge a run's adapter into its base and write a full model with a model card."""
    from fedit.export import export as export_run

    _calm_models()
    export_run(folder, target)
    print(f"wrote {target}", file=sys.stderr)


def main() -> None:
    """Entry point: a user's mistake ends in one message and exit code 2, an interrupt in 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except FeditError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"error: {printable(str(error))}; what was finished before is safe", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _plan(
    recipe: Path, changes: list[str] | None, output: Path | None = None, resume: bool = False
) -> "Plan":
    from fedit.recipe import load_plan

    words = list(changes or [])
    if resume and not recipe.exists() and recipe.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"{recipe}: no such run folder; check the path, or give a recipe to begin one"
        )
    if recipe.is_dir():
        if not resume or not (recipe / "plan.yaml").exists():
            raise InputError(f"{recipe}: is a folder; give a recipe, or a run folder with --resume")
        return load_plan(
            recipe / "plan.yaml", [*words, f"output={json.dumps(str(output or recipe))}"]
        )
    if output is not None:
        words.append(f"output={json.dumps(str(output))}")
    return load_plan(recipe, words)


def _arithmetic(plan: "Plan") -> str:
    """What the plan's shares come to, where the number of clients is known from the plan alone."""
    from fedit.core.amounts import part_of

    clients = getattr(plan.partition, "clients", None)
    if clients is None:
        return ""
    cohort = part_of(plan.federation.cohort, clients)
    needed = part_of(plan.federation.minimum, cohort, up=True)
    return f"# {cohort} of {clients} clients a round, at least {needed} must reply\n"


def _calm_libraries() -> None:
    """Keep what libraries say of themselves off the screen; their errors still come through."""
    for name in (
        "HF_HUB_DISABLE_PROGRESS_BARS",
        "HF_DATASETS_DISABLE_PROGRESS_BARS",
        "TQDM_DISABLE",
    ):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings(
        "ignore", message="Position ids are not supported", category=UserWarning
    )


def _calm_models() -> None:
    """The same for transformers, whose bars and reports know no other switch."""
    _calm_libraries()
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _table(result: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    for note in result["notes"]:
        print(f"note: {printable(note)}", file=sys.stderr)
    table = Table(title=f"after round {result['round']}", box=SIMPLE)
    table.add_column("", no_wrap=True)
    for heading in ("rows", "loss", "perplexity", "EM", "F1"):
        table.add_column(heading, justify="right")
    groups = result["by"] if set(result["by"]) != {"all"} else {}
    for name, part in [("all", result), *groups.items()]:
        table.add_row(
            escape(printable(name)),
            f"{part['rows']:,}",
            "not finite" if part["loss"] is None else f"{part['loss']:.4f}",
            "not finite" if part["perplexity"] is None else f"{part['perplexity']:,.1f}",
            f"{part['exact_match']:.1%}",
            f"{part['token_f1']:.1%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
