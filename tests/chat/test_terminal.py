"""The chat as a person and as a script use it."""

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedit.chat import terminal
from fedit.chat.models import open_voices
from fedit.chat.talk import Talk
from fedit.cli import app
from fedit.core.errors import InputError

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eback\r\n[bold]x[/bold] ok"
SAFE = " [31mred ]0;title   2J  back \n[bold]x[/bold] ok"


def chat(*words: object, asked: str):
    words = ("chat", *map(str, words))
    return CliRunner().invoke(app, words, input=asked)


@pytest.fixture(scope="module")
def voices(study):
    return open_voices(study, ["base", "central"])


def test_a_pipe_gets_answers_only(study, script):
    script("It is\nParis.")
    result = chat(
        study, asked="What is it?\n\n/context Tea.\nAnd this?\n//quit is what?\n/quit\nno\n"
    )
    assert (result.exit_code, result.stdout) == (0, "It is\nParis.\n" * 3)
    assert result.stderr == "loading …\n"


def test_several_answers_are_headed_by_their_models(study):
    result = chat(study, "--compare", "base, local:1", asked="What is it?\n")
    assert result.exit_code == 0
    heads = re.findall("^── (.*)$", result.stdout, re.MULTILINE)
    assert heads == ["fedit", "base", "local:client-01"]


def test_json_tells_all_of_an_answer_a_line(study, script):
    script(HOSTILE)
    result = chat(study, "--compare", "base", "--json", asked="/context Té.\nWhat is it?\n")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["model"] for record in records] == ["fedit", "base"]
    for record in records:
        assert record["answer"] == HOSTILE
        assert (record["question"], record["context"]) == ("What is it?", "Té.")
        assert record["tokens"] > 10
        assert record["cut"] is False
    assert result.stdout.replace("\n", "").isprintable()
    assert "Té" in result.stdout


def test_temperature_and_seed_choose_the_answer(study):
    def drawn(*words: object) -> str:
        return chat(study, "--max-new-tokens", 20, *words, asked="What is it?\n").stdout

    one = drawn("--temperature", 1.5, "--seed", 1)
    assert drawn("--temperature", 1.5, "--seed", 1) == one
    assert drawn("--temperature", 1.5, "--seed", 2) != one
    assert drawn("--seed", 1) == drawn("--seed", 2)


@pytest.mark.parametrize(
    ("words", "asked", "said"),
    [
        (["--compare", "nobody"], "", "nobody: neither a model beside"),
        (["--max-new-tokens", "9999"], "", "give at most 2024"),
        ([], "one\n/tempreature 1\n", "line 2: /tempreature: no such command"),
        ([], "/temperature -1\n", "line 1: temperature: '-1' is no number"),
        (["--web", "--json"], "", "--json: belongs to a chat through pipes"),
    ],
)
def test_mistakes_are_told(study, words, asked, said):
    result = chat(study, *words, asked=asked)
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)


def test_what_a_model_says_cannot_steer_the_terminal(study, script):
    script(HOSTILE)
    assert chat(study, asked="What is it?\n").stdout == SAFE + "\n"


def test_a_tokenizer_that_joins_words_anew_begins_its_line_again(capsys):
    class Rejoined:
        text = "don't"

        def __iter__(self):
            yield from ("don", "don '", "don't")

    terminal.as_text([Rejoined()])  # type: ignore[list-item]
    assert capsys.readouterr().out == "don '\ndon't\n"


@pytest.fixture
def console():
    def made(width: int) -> Console:
        return Console(
            file=io.StringIO(),
            width=width,
            height=30,
            force_terminal=True,
            highlight=False,
            markup=False,
        )

    return made


def test_answers_stand_side_by_side_and_wrap(voices, script, console):
    script(HOSTILE.replace("ok", "long" * 20))
    screen = console(100)
    terminal.Columns(screen)(Talk(voices, 300).ask("What is it?"))
    shown = screen.file.getvalue()
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search("╭─+ fedit ─+╮╭─+ base ─+╮╭─+ central ─+╮", drawn)
    assert "\x1b[31m" not in shown
    assert "\x9b" not in shown
    assert "\x1b]" not in shown
    last = drawn[drawn.rindex("fedit") :]
    assert last.count("g") == 3 * 20  # nothing is cut away
    assert all(len(line) <= 100 for line in drawn.splitlines()[-12:])


def test_where_there_is_no_room_they_follow_each_other(voices, script, console, capsys):
    script("yes")
    terminal.Columns(console(80))(Talk(voices).ask("What is it?"))
    assert capsys.readouterr().out == "── fedit\nyes\n── base\nyes\n── central\nyes\n"


def converse(talk: Talk, monkeypatch, *lines: object) -> str:
    """What a person sees who types these lines, or presses these keys."""

    def typed(_: str) -> str:
        line = next(given)
        if isinstance(line, type):
            raise line
        return str(line)

    given = iter([*lines, EOFError])
    monkeypatch.setattr("builtins.input", typed)
    screen = Console(file=io.StringIO(), width=100, highlight=False, markup=False)
    terminal.converse(talk, terminal.as_text, screen)
    return screen.file.getvalue()


def test_a_person_is_told_what_commands_did(voices, script, monkeypatch, capsys):
    script("yes")
    talk = Talk(voices[:1])
    shown = converse(
        talk, monkeypatch, "", "/help", "/context Tea.", "/temperature 0.5", "/no", "one", "/new"
    )
    for said in (
        "fedit",
        "after round 1",
        "/context TEXT",
        "about these 4 characters",
        "temperature 0.5",
        "/no: no such command",
        "a new conversation",
    ):
        assert said in shown
    assert capsys.readouterr().out == "yes\n"
    assert talk.temperature == 0.5


def test_two_interrupts_in_a_row_end_the_chat_and_one_does_not(voices, script, monkeypatch):
    script("yes")
    talk = Talk(voices[:1])
    shown = converse(talk, monkeypatch, KeyboardInterrupt, "one", KeyboardInterrupt)
    assert shown.count("Ctrl-C again ends") == 2
    with pytest.raises(KeyboardInterrupt):
        converse(talk, monkeypatch, KeyboardInterrupt, KeyboardInterrupt)


class Terminal:
    """A command on a real terminal of its own."""

    def __init__(self, *words: object) -> None:
        mine, its = pty.openpty()
        self.screen, self.seen = mine, b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fedit.cli", *map(str, words)],
            stdin=its,
            stdout=its,
            stderr=its,
            env={**os.environ, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(its)

    def read(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self.screen], [], [], seconds)
        try:
            new = os.read(self.screen, 65536) if ready else b""
        except OSError:  # the other side is closed
            new = b""
        self.seen += new
        return new

    def wait(self, for_: str, seconds: float = 60) -> str:
        """What appears up to a text."""
        end = time.monotonic() + seconds
        while for_.encode() not in self.seen:
            assert time.monotonic() < end, self.seen.decode(errors="replace")
            self.read(0.2)
        before, _, self.seen = self.seen.partition(for_.encode())
        return before.decode()

    def send(self, text: str) -> None:
        os.write(self.screen, text.encode())


@pytest.mark.slow
def test_answers_stream_on_a_terminal_and_can_be_interrupted(talkative):
    talk = Terminal("chat", talkative, "--max-new-tokens", "1900")
    try:
        for question in ("What is it?", "And this?"):
            talk.wait("› ")
            talk.send(f"{question}\n")
            talk.wait(question)
            for _ in range(6):  # the echo of Enter, and the answer as it is made
                assert talk.read(10)
            talk.process.send_signal(signal.SIGINT)
            talk.wait("stopped; Ctrl-C again ends", 5)
        talk.wait("› ")
        for _ in range(3):  # one that comes while the prompt is drawn may be lost
            talk.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                talk.process.wait(12)
                break
        assert talk.process.returncode == 130
        talk.read(0)
        assert "Traceback" not in talk.seen.decode()
    finally:
        talk.process.kill()
        talk.process.wait()
        os.close(talk.screen)
