"""A chat in the terminal, or through pipes: lines in, answers out."""

import json
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fedit.chat.commands import obey
from fedit.chat.reply import Reply
from fedit.chat.talk import Talk
from fedit.core.errors import InputError
from fedit.core.examples import Turn
from fedit.printable import printable

NARROW = 32
"""Columns of a terminal that an answer needs at least to stand beside others."""

NOTHING = "(said nothing)"

_PICTURES = 12  # a second, of answers that stand side by side


Show = Callable[[list[Reply]], None]
"""Makes replies and shows them as they grow."""


def converse(talk: Talk, show: Show, console: Console) -> None:
    """Ask and answer with a person; Ctrl-C stops an answer, a second one in a row raises again."""
    widest = max(len(voice.name) for voice in talk.voices)
    for voice in talk.voices:
        name = printable(voice.name).ljust(widest)
        console.print(Text.assemble((name, "bold"), "  ", printable(voice.origin)))
    console.print("Ask a question; /help tells more, Ctrl-D ends.", style="dim")
    interrupted = False
    while True:
        try:
            console.print()
            if line := input("› ").strip():
                interrupted = False
                _obey_or_answer(talk, line, show, console)
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            console.print("\nstopped; Ctrl-C again ends, as does Ctrl-D", style="dim")


def answer_lines(talk: Talk, show: Show, lines: Iterator[str]) -> None:
    """Answer one question a line; notes go to standard error. Raises InputError for a bad line."""
    for number, given in enumerate(lines, 1):
        if not (line := given.strip()):
            continue
        try:
            if obey(talk, line) is not None:
                continue
        except EOFError:
            return
        except InputError as error:
            raise InputError(f"line {number}: {error}") from None
        for note in _answer(talk, line, show):
            print(f"note: {note}", file=sys.stderr)  # noqa: T201


def _obey_or_answer(talk: Talk, line: str, show: Show, console: Console) -> None:
    try:
        done = obey(talk, line)
    except InputError as error:
        console.print(printable(str(error)), style="yellow")
        return
    for said in _answer(talk, line, show) if done is None else [done]:
        console.print(said, style="dim")


def _answer(talk: Talk, line: str, show: Show) -> list[str]:
    """Ask and show; what is left to tell. Interrupted, it keeps what was said by then."""
    replies = talk.ask(line[1:] if line.startswith("//") else line)
    try:
        show(replies)
    finally:
        for reply in replies:
            reply.stop()
        talk.keep(replies)
    return talk.told()


def as_text(replies: list[Reply], nothing: str = "") -> None:
    """Answers one after another as they grow, each under its model's name if there are several.

    `nothing` stands for an empty answer.
    """
    for reply in replies:
        if len(replies) > 1:
            print(f"── {printable(reply.voice.name)}", flush=True)  # noqa: T201
        shown = ""
        try:
            for text in reply:
                safe = printable(text)
                if not safe.startswith(shown):  # a tokenizer that joins words anew: begin again
                    print(flush=True)  # noqa: T201
                    shown = ""
                print(safe[len(shown) :], end="", flush=True)  # noqa: T201
                shown = safe
        finally:
            print("" if shown else nothing, flush=True)  # noqa: T201


def as_json(replies: list[Reply]) -> None:
    """One JSON object for each answer, on a line of its own."""
    for reply in replies:
        began = time.monotonic()
        for _ in reply:
            pass
        question: Turn = reply.turns[-1]
        record = {
            "model": reply.voice.name,
            "question": question.text,
            "context": question.context,
            "answer": reply.text,
            "tokens": reply.tokens,
            "cut": reply.cut,
            "seconds": round(time.monotonic() - began, 3),
        }
        line = json.dumps(record, ensure_ascii=False)  # a terminal may be what reads it
        safe = (c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
        print("".join(safe), flush=True)  # noqa: T201


class Columns:
    """Answers side by side as they grow, or one after another where the terminal is narrow."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, replies: list[Reply]) -> None:
        """Make and show the answers."""
        if self.console.width < NARROW * len(replies):
            as_text(replies, NOTHING)
            return
        drawn = 0.0
        with Live(console=self.console, auto_refresh=False) as live:
            live.update(_panels(replies, 0))
            try:
                for place, reply in enumerate(replies):
                    for _ in reply:
                        if time.monotonic() - drawn > 1 / _PICTURES:
                            live.update(_panels(replies, place), refresh=True)
                            drawn = time.monotonic()
            finally:
                live.update(_panels(replies, None), refresh=True)


def _panels(replies: list[Reply], speaking: int | None) -> Table:
    table = Table.grid(expand=True)
    for _ in replies:
        table.add_column(ratio=1, overflow="fold")
    panels = []
    for place, reply in enumerate(replies):
        done = speaking is None or place < speaking
        empty = NOTHING if done else "…" if place == speaking else ""
        text = Text(printable(reply.text) or empty, style="" if reply.text else "dim")
        style = "cyan" if place == speaking else "dim"
        name = Text(printable(reply.voice.name), style="bold not dim")
        panels.append(Panel(text, title=name, border_style=style))
    table.add_row(*panels)
    return table
