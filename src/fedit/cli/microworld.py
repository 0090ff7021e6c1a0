"""The command that writes the embedded world down."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedit.cli.app import app


@app.command()
def microworld(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new folder for the files")],
    seed: Annotated[int, typer.Option(min=0, help="another seed is another world")] = 0,
    documents: Annotated[int, typer.Option(min=0, help="documents of the base's corpus")] = 1000,
) -> None:
    """Write the embedded world as files: train, dev and test records, and what the base has read."""
    from fedit.data.microworld.files import write_microworld

    for path, count in write_microworld(folder, seed, documents):
        print(f"wrote {path} ({count:,} rows)", file=sys.stderr)
