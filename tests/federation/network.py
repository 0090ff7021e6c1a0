"""A server and its sites as real processes on loopback, each in a folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from fedit import make_plan, run
from fedit.config import Network
from fedit.data.microworld import microworld
from fedit.federation.kit import make_kits
from fedit.recipe import dump_plan
from tests.tiny import CONFIG, adapter_bytes

FEDIT = [sys.executable, "-m", "fedit.cli"]
SITES = ("east", "north", "south")
ROWS = {"east": 30, "north": 50, "south": 40}
PATIENCE = 120.0
"""Seconds for anything that must happen; on a busy machine it takes long."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Federation:
    """Kits, data and a recipe in a folder; starts, kills and ends processes."""

    def __init__(self, folder: Path, sites: tuple[str, ...] = SITES, **changes: Any):
        self.folder, self.sites = folder, sites
        self.kits, self.output = folder / "kits", folder / "run"
        self.network = Network(host="127.0.0.1", port=free_port(), sites=list(sites))
        make_kits(self.network, self.kits)
        (folder / "data").mkdir(parents=True)
        for start, site in enumerate(sites):
            self.write_rows(site, 50 * start)
        self.recipe = folder / "recipe.yaml"
        self.plan: dict[str, Any] = {
            "name": "recipe",
            "model": {"config": CONFIG},
            "adapter": {"rank": 2},
            "data": {"train": str(folder / "data"), "test": "microworld"},
            "template": {"name": "plain", "max_length": 96},
            "partition": {"by": "key", "column": "file"},
            "federation": {"rounds": 4},
            "local": {"steps": 2, "batch": 4, "lr": 1e-2, "keep_optimizer": True},
            "evaluation": {"every": 4, "limit": 8},
            "engine": {"kind": "sites", "wait": 60},
            "threads": 1,
            **changes,
        }
        self.recipe.write_text(dump_plan(make_plan(self.plan)))
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def write_rows(self, site: str, start: int) -> None:
        rows = microworld()[start : start + ROWS.get(site, 30)]
        text = "".join(
            json.dumps({"instruction": f"{site} {n}: {e.turns[0].text}", "response": e.answer})
            + "\n"
            for n, e in enumerate(rows)  # no row stands at two sites: fedit run would drop one
        )
        (self.folder / "data" / f"{site}.jsonl").write_text(text)

    def in_process(self) -> bytes:
        """What `fedit run` makes of the same recipe and files."""
        plan = {**self.plan, "engine": "inprocess", "output": str(self.folder / "usual")}
        for _ in run(make_plan(plan)):
            pass
        return adapter_bytes(self.folder / "usual")

    def start(self, name: str, *words: str) -> None:
        """Start the server or a site, whose lines go to a file."""
        if name == "server":
            command = ["server", str(self.kits / "server"), str(self.recipe)]
            command += ["--output", str(self.output), *words]
        else:
            data = str(self.folder / "data" / f"{name}.jsonl")
            command = ["join", str(self.kits / name), "--data", data, "threads=1", *words]
        with open(self.folder / f"{name}.log", "a") as log:
            self.processes[name] = subprocess.Popen(
                [*FEDIT, *command],
                stderr=log,
                stdout=log,
                text=True,
                env=dict(os.environ),
                cwd=self.folder,
            )

    def start_all(self) -> None:
        for name in ("server", *self.sites):
            self.start(name)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def journal(self) -> list[dict[str, Any]]:
        path = self.output / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def adapter(self) -> bytes:
        return adapter_bytes(self.output)

    def wait_for(self, what: Callable[[], Any], seconds: float = PATIENCE) -> float:
        """Wait until something is so; the seconds it took."""
        began = time.monotonic()
        while not what():
            if time.monotonic() - began > seconds:
                logs = "\n".join(f"{n}: {self.said(n)[-1500:]}" for n in self.processes)
                raise AssertionError(f"not within {seconds:.0f} s\n{logs}")
            time.sleep(0.05)
        return time.monotonic() - began

    def wait_for_round(self, number: int) -> float:
        return self.wait_for(lambda: len(self.journal()) > number)

    def finish(self) -> None:
        """Wait for the server's end, which must be a good one."""
        server = self.processes["server"]
        self.wait_for(lambda: server.poll() is not None)
        assert server.returncode == 0, self.said("server")

    def found(self, word: str, *more: str) -> list[psutil.Process]:
        """Processes with these words in their command line."""
        processes = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if str(self.kits) in line and all(one in line for one in (word, *more)):
                processes.append(process)
        return processes

    def kill(self, word: str, *more: str) -> None:
        for process in self.found(word, *more):
            process.kill()

    def end(self) -> None:
        """Interrupt everybody; nothing may be left."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            process.wait(PATIENCE)
        left = [" ".join(process.cmdline()[:5]) for process in self.found("")]
        self.kill("")
        assert not left


@contextmanager
def federation(folder: Path, **changes: Any) -> Iterator[Federation]:
    found = Federation(folder, **changes)
    try:
        yield found
    finally:
        found.end()
