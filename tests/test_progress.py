"""What a person sees, and that hostile text cannot steer their terminal."""

import io
import re

from rich.console import Console

from fedit.core.messages import Failure, Order, Update
from fedit.printable import printable
from fedit.progress import Lines, Live, Watched, clock, display
from fedit.report.words import size
from fedit.runner import Finished, Run
from tests.tiny import tiny


def finished(**record) -> Finished:
    return Finished(3, {"round": 3, "seconds": {}, **record}, {})


def test_sizes_and_times_read_well():
    assert [size(n) for n in (0, 999, 1000, 3_188_480, 5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "3.2 MB",
        "5.0 TB",
    ]
    assert [clock(s) for s in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]


def test_control_characters_and_markup_reach_the_terminal_as_text():
    assert printable("a\x1b[2Jb\nc\x85") == "a [2Jb\nc "
    out = io.StringIO()
    failure = {"client": "c1", "reason": "error", "detail": "\x1b[31m[red]boom[/red]\x07"}
    Lines(out).finished(finished(failures=[failure]))
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "[red]boom[/red]" in out.getvalue()


def test_a_watched_engine_passes_every_reply_on():
    class Engine:
        def clients(self):
            return []

        def take_back(self, order, clients):
            seen.append(clients)

        def ask(self, order):
            yield Failure("a", "dropout")
            yield Failure("b", "dropout")

    seen = []
    shown = type(
        "Shown", (), {"asked": lambda _, o: seen.append(o), "replied": lambda _, r: seen.append(r)}
    )()
    order = Order(0, 0, 0, {}, {"a": 1.0, "b": 1.0}, frozenset(), frozenset())
    replies = list(Watched(Engine(), shown).ask(order))
    assert seen == [order, *replies]
    assert len(replies) == 2
    Watched(Engine(), shown).take_back(order, ["a"])
    assert seen[-1] == ["a"]


def test_the_live_display_shows_rounds_clients_loss_speed_bytes_and_time_left(tmp_path):
    live = Live()
    out = io.StringIO()
    live.console = live.progress.live.console = Console(file=out, force_terminal=True, width=160)
    with Run(tiny(tmp_path / "run")) as run, live:
        live.opened(run)
        for done in run.rounds(lambda engine: Watched(engine, live)):
            live.finished(done)
        live.progress.refresh()
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    for words in ("round 3/3", "rounds", "clients", "3/3", "2/2", "tok/s", "↑", "left"):
        assert words in screen, words
    assert re.search(r"client-\d+: loss \d", screen)


def test_a_failure_moves_the_bar_too():
    live = Live()
    live.console = live.progress.live.console = Console(file=io.StringIO(), force_terminal=True)
    live._clients = live.progress.add_task("clients", total=None, news="")
    live.asked(Order(0, 0, 0, {}, {"a": 1.0, "b": 1.0}, frozenset(), frozenset()))
    live.replied(Failure("a", "dropout"))
    live.replied(Update("b", 0, 0, {}, {"loss": 1.0, "tokens": 5.0}))
    assert live.progress.tasks[0].completed == 2


def test_which_display_is_chosen(monkeypatch):
    names = [
        type(display(quiet=quiet, as_json=as_json)).__name__
        for quiet, as_json in ((True, False), (False, True), (False, False))
    ]
    assert names == ["Silent", "Json", "Lines"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert type(display(quiet=False, as_json=False)).__name__ == "Live"


def test_a_run_that_made_things_worse_says_so():
    out = io.StringIO()
    lines = Lines(out)
    lines._rounds = 3
    for number, loss in ((0, 2.0), (3, 2.5)):
        record = {"round": number, "seconds": {}, "evaluation": {"loss": loss}}
        lines.finished(Finished(number, record, {}))
    assert "worse than before training" in out.getvalue()
    lines.finished(Finished(2, {"round": 2, "evaluation": {"loss": None}}, {}))
    assert "held-out loss not finite" in out.getvalue()
