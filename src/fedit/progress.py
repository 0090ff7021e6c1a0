"""What a person sees of a run: a live display on a terminal, plain lines elsewhere, JSON for scripts."""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fedit.core.messages import Client, Order, Reply, Update
from fedit.core.population import Answer, Engine
from fedit.core.shares import told
from fedit.printable import printable
from fedit.report.words import size
from fedit.runner import Finished, Run


class Display(Protocol):
    """Shows a run; a context manager around its rounds."""

    def __enter__(self) -> "Display": ...

    def __exit__(self, *error: object) -> None: ...

    def opened(self, run: Run) -> None:
        """Everything is loaded; training begins."""

    def asked(self, order: Order) -> None:
        """A cohort was drawn."""

    def replied(self, reply: Reply) -> None:
        """A client of the cohort replied or failed."""

    def finished(self, done: Finished) -> None:
        """A round is safe on disk."""


@dataclass(frozen=True)
class Watched:
    """An engine whose replies a display sees as they pass."""

    engine: Engine
    display: Display

    def clients(self) -> Sequence[Client]:
        """The population."""
        return self.engine.clients()

    def ask(self, order: Order) -> Iterator[Answer]:
        """The same answers, each client's reply shown."""
        self.display.asked(order)
        for answer in self.engine.ask(order):
            for reply in told(answer, order):
                self.display.replied(reply)
            yield answer

    def take_back(self, order: Order, clients: Sequence[str]) -> None:
        """The engine's."""
        self.engine.take_back(order, clients)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


class Silent:
    """Shows nothing."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def opened(self, run: Run) -> None:
        """Nothing."""

    def asked(self, order: Order) -> None:
        """Nothing."""

    def replied(self, reply: Reply) -> None:
        """Nothing."""

    def finished(self, done: Finished) -> None:
        """Nothing."""


class Json(Silent):
    """One JSON record a round, as in the journal."""

    def finished(self, done: Finished) -> None:
        """The round's record on one line."""
        print(json.dumps(done.record, ensure_ascii=False), flush=True)  # noqa: T201


class Lines(Silent):
    """One line a round."""

    def __init__(self, out: IO[str] | None = None):
        self.console = Console(file=out or sys.stderr, highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._first = self._rounds = 0
        self._start: float | None = None

    def opened(self, run: Run) -> None:
        """What was loaded, and what a person should know of it."""
        for note in run.notes:
            self.say(f"note: {note}", "yellow")
        for line in summary(run):
            self.say(line)
        self._first, self._rounds = run.state.round, run.plan.federation.rounds
        self._began = time.monotonic()

    def finished(self, done: Finished) -> None:
        """The round's line, after a line for each client that failed."""
        for failure in done.record.get("failures", []):
            detail = printable(failure["detail"])[:300]
            self.say(f"  {failure['client']} failed: {failure['reason']}: {detail}", "yellow")
        self.say(round_line(done, self._rounds, self._left(done.round)))
        if done.round == 0:
            self._start = done.loss
        elif done.round == self._rounds and self._start and (done.loss or math.inf) > self._start:
            self.say(
                "note: the held-out loss is worse than before training; lower local.lr?", "yellow"
            )

    def say(self, text: str, style: str | None = None) -> None:
        """A line, whatever brackets it holds."""
        self.console.print(escape(printable(text)), style=style)

    def _left(self, round: int) -> float | None:
        done = round - self._first
        return (time.monotonic() - self._began) / done * (self._rounds - round) if done else None


class Live(Lines):
    """Lines, with bars below them for the rounds and for the clients of the round."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            console=self.console,
        )

    def __enter__(self) -> "Live":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def opened(self, run: Run) -> None:
        """The bars, under what was loaded."""
        super().opened(run)
        self._task = self.progress.add_task(
            "rounds", total=self._rounds, completed=run.state.round, news=""
        )
        self._clients = self.progress.add_task("clients", total=None, news="")

    def asked(self, order: Order) -> None:
        """The clients' bar begins anew."""
        self._replies, self._asked = list[Update](), time.monotonic()
        self.progress.reset(self._clients, total=len(order.cohort), news="")

    def replied(self, reply: Reply) -> None:
        """Loss, real tokens a second and bytes so far in the round."""
        if isinstance(reply, Update):
            self._replies.append(reply)
        totals = {
            key: sum(r.metrics.get(key, 0) for r in self._replies)
            for key in ("tokens", "bytes_up", "bytes_down")
        }
        rate = totals["tokens"] / (time.monotonic() - self._asked)
        loss = "no reply · "
        if isinstance(reply, Update):  # the gate has not seen it yet, so it may tell no loss
            loss = f"loss {reply.metrics['loss']:.3f} · " if "loss" in reply.metrics else ""
        traffic = f"↑ {size(totals['bytes_up'])} ↓ {size(totals['bytes_down'])}"
        self.progress.update(
            self._clients,
            advance=1,
            news=f"{escape(reply.client)}: {loss}{rate:,.0f} tok/s · {traffic}",
        )

    def finished(self, done: Finished) -> None:
        """The line above the bars, and the time left beside them."""
        super().finished(done)
        left = self._left(done.round)
        news = "" if left is None else f"{clock(left)} left"
        self.progress.update(self._task, completed=done.round, news=news)


def display(*, quiet: bool, as_json: bool) -> Display:
    """The display a command line asks for."""
    if as_json:
        return Json()
    if quiet:
        return Silent()
    return Live() if sys.stderr.isatty() else Lines()


def summary(run: Run) -> list[str]:
    """What is about to be federated, in two lines."""
    job, plan = run.job, run.plan
    clients = job.engine.clients()
    sizes = [client.examples for client in clients]
    trained = sum(p.numel() for p in job.adapted.parameters.values())
    everything = sum(p.numel() for p in job.adapted.model.parameters())
    lines = [
        f"{plan.name}: {len(clients)} clients with {min(sizes):,}–{max(sizes):,} examples "
        f"({sum(sizes):,} in all), {len(job.test.rows):,} held out",
        f"{plan.algorithm.name}, {plan.adapter.kind}: {trained:,} of {everything:,} parameters train "
        f"({trained / everything:.2%}) on {job.base.device}",
    ]
    if run.state.round:
        lines.append(f"resuming after round {run.state.round}")
    return lines


def round_line(done: Finished, rounds: int, left: float | None) -> str:
    """A round in one line: losses, clients, real tokens a second, bytes, time left."""
    record = done.record
    parts = [f"round {done.round}/{rounds}"]
    scored = record.get("evaluation", {})
    if done.loss is not None:
        parts.append(f"held-out loss {done.loss:.4f}")
        if scored.get("accuracy") is not None:
            parts.append(f"{scored['accuracy']:.1%} of pairs ranked rightly")
    elif "loss" in scored:
        parts.append("held-out loss not finite")
    if "loss" in record:
        train = record["seconds"]["train"]
        parts += [
            f"train loss {record['loss']:.4f}" if record["loss"] is not None else "",
            f"{len(record['clients'])} of {len(record['cohort'])} clients",
            f"{record['tokens'] / train:,.0f} tok/s" if train else "",
            f"↑ {size(record['bytes_up'])} ↓ {size(record['bytes_down'])}",
        ]
    if left:
        parts.append(f"{clock(left)} left")
    return " · ".join(part for part in parts if part)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
