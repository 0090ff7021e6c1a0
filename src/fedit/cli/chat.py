"""The command that talks with a run's model: chat."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedit.cli.app import AsJson, app, calm_models
from fedit.printable import printable

if TYPE_CHECKING:
    from fedit.chat.talk import Talk


@app.command()
def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run folder, or study folder")],
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="other models to answer as well: base, another arm of the study (central), one "
            "client's (local:3), or a run folder",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, max=100, help="0: always the likeliest token")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="of what a temperature draws")] = 0,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="longest answer (default: the run's evaluation.max_new_tokens)"),
    ] = None,
    remember: Annotated[
        bool, typer.Option("--remember", help="go on from what was said (for conversational data)")
    ] = False,
    web: Annotated[bool, typer.Option("--web", help="talk in the browser")] = False,
    host: Annotated[str, typer.Option(help="with --web: address to listen on")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="with --web: 0 takes a free one")
    ] = 7860,
    as_json: AsJson = False,
) -> None:
    """Talk with a run's model, in the terminal, the browser or a pipe; side by side with others."""
    from fedit.core.errors import InputError

    if web and as_json:
        raise InputError("--json: belongs to a chat through pipes; drop it, or --web")
    if web:
        from fedit.chat.web import need_gradio

        need_gradio()
    calm_models()
    from fedit.chat.models import open_voices
    from fedit.chat.talk import Talk

    names = [name.strip() for name in (compare or "").split(",") if name.strip()]
    print("loading …", file=sys.stderr)
    voices = open_voices(
        run, names, lambda note: print(f"note: {printable(note)}", file=sys.stderr)
    )
    talk = Talk(voices, max_new_tokens, temperature, seed, remember=remember)
    if web:
        from fedit.chat.web import serve

        serve(talk, host, port)
    else:
        _terminal(talk, as_json)


def _terminal(talk: "Talk", as_json: bool) -> None:
    from rich.console import Console

    from fedit.chat import terminal

    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(130)
    )  # not a Ctrl-C: that ends an answer only
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if as_json:
        terminal.answer_lines(talk, terminal.as_json, iter(sys.stdin))
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        terminal.answer_lines(talk, terminal.as_text, iter(sys.stdin))
    else:
        import readline  # noqa: F401 - `input` edits lines with it

        console = Console(highlight=False, markup=False)
        several = len(talk.voices) > 1
        alone = partial(terminal.as_text, nothing=terminal.NOTHING)
        show = terminal.Columns(console) if several else alone
        terminal.converse(talk, show, console)
