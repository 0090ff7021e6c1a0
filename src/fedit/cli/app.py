"""The application every command hangs on, and what commands share: a recipe's words, quiet libraries."""

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedit.core.errors import InputError

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


def read_plan(
    recipe: Path, changes: list[str] | None, output: Path | None = None, resume: bool = False
) -> "Plan":
    """The plan of a recipe, or of a run folder that is to be resumed. Raises InputError."""
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


def calm_libraries() -> None:
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


def calm_models() -> None:
    """The same for transformers, whose bars and reports know no other switch."""
    calm_libraries()
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
