"""The command that writes a page about runs or a study: report."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fedit.cli.app import app, calm_libraries


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="study, or one or more run folders")
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="page (default DIR/report.html)")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Write one HTML page: scores, curves, who holds what, answers side by side, cost and plan."""
    calm_libraries()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a page about the past fetches nothing
    from fedit.reported import report as write

    target = write(folders, output)
    print(target)
    if show:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())
