"""Workers that share a base, their memory and speed: python benchmarks/workers.py [--quick] (Linux)

Memory is the proportional set size (PSS) of a run, its fork server and its workers together: a page that n
processes share counts 1/n for each. Workers of an engine, which train the clients of one run, are looked
at after a round; workers of a study, which carry out whole runs, every few seconds, the most counts (a look
stops the process, so they are few). A round's speed is that of a tiny model, where two cores gain most;
the engines take turns, and the numbers are medians over rounds with the range of the ratios between turns.
"""

import os
import platform
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from fedit import Run, make_plan, make_study
from fedit.studies.study import OpenStudy

MEDIUM = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 2048,
}
TINY = MEDIUM | {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4}
QUICK = "--quick" in sys.argv
TURNS, ROUNDS = (1, 2) if QUICK else (3, 6)


def main() -> None:
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores")
    speeds()
    for name, measure in (("an engine", engine_memory), ("a study", study_memory)):
        one = measure(1)
        for workers in (1, 2) if QUICK else (1, 2, 4):
            mib = measure(workers) if workers > 1 else one
            print(
                f"workers of {name}, {workers}: PSS {mib:,.0f} MiB, {mib / one:.2f} × one",
                flush=True,
            )


def plan(config: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return {
        "model": {"config": config},
        "data": {"train": "microworld", "holdout": {"size": 4}, "limit": 160},
        "template": {"name": "plain", "max_length": 64},
        "partition": {"clients": 8},
        "federation": {"rounds": 2},
        "local": {"steps": 4, "batch": 2},
        "evaluation": {"max_new_tokens": 2, "every": 1000},
        "threads": 1,
        **sections,
    }


def study_memory(workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        arms = {f"arm-{i}": {} for i in range(4)}
        study = make_study(
            {"plan": plan(MEDIUM), "arms": arms, "workers": workers, "output": f"{folder}/study"}
        )
        with OpenStudy(study) as opened:
            return most_memory(lambda: list(opened.done()))


def engine_memory(workers: int) -> float:
    engine = {"kind": "workers", "processes": workers}
    with (
        tempfile.TemporaryDirectory() as folder,
        Run(make_plan(plan(MEDIUM, engine=engine, output=f"{folder}/run"))) as run,
    ):
        rounds = run.rounds()
        for _ in range(3):  # the untrained start, and two rounds
            next(rounds)
        return memory()


def most_memory(do: Callable[[], object]) -> float:
    """MiB of all processes, at the most, while this one does that."""
    most, stop = 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.wait(3):
            most = max(most, memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    do()
    stop.set()
    watcher.join()
    return most


def memory() -> float:
    """MiB of this process, the fork server and what was forked from it."""
    server = forkserver._forkserver._forkserver_pid
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split() if server else []
    return sum(map(pss, [str(os.getpid()), str(server), *children]))


def pss(pid: str) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0.0
    found = re.search(r"^Pss:\s+(\d+)", text, re.M)
    return int(found[1]) / 1024 if found else 0.0


def speeds() -> None:
    """Seconds a round of one process, one worker and two, in turns."""
    seconds: dict[str, list[float]] = {"in process": [], "1 worker": [], "2 workers": []}
    with tempfile.TemporaryDirectory() as folder, opened_runs(Path(folder)) as runs:
        for name, rounds in runs.items():
            for _ in range(2):  # the untrained start, and a round in which workers start
                next(rounds)
            assert name in seconds
        for _ in range(TURNS):
            for name, rounds in runs.items():
                for _ in range(ROUNDS):
                    begun = time.perf_counter()
                    next(rounds)
                    seconds[name].append(time.perf_counter() - begun)
    base = turns(seconds["in process"])
    for name, values in seconds.items():
        ratios = [one / mine for one, mine in zip(base, turns(values), strict=True)]
        print(
            f"a round of a tiny model, {name}: {statistics.median(values):.3f} s, "
            f"{statistics.median(ratios):.2f} × as fast ({min(ratios):.2f}–{max(ratios):.2f})",
            flush=True,
        )


def turns(values: list[float]) -> list[float]:
    return [statistics.median(values[i : i + ROUNDS]) for i in range(0, len(values), ROUNDS)]


@contextmanager
def opened_runs(folder: Path) -> Iterator[dict[str, Iterator[Any]]]:
    engines: Iterable[tuple[str, Any]] = (
        ("in process", "inprocess"),
        ("1 worker", {"kind": "workers", "processes": 1}),
        ("2 workers", {"kind": "workers", "processes": 2}),
    )
    rounds, runs = {"rounds": 2 + TURNS * ROUNDS}, []
    try:
        for name, engine in engines:
            output = str(folder / name)
            tree = plan(TINY, engine=engine, federation=rounds, output=output)
            tree["local"] = {"steps": 8, "batch": 4}
            runs.append((name, Run(make_plan(tree))))
        yield {name: run.rounds() for name, run in runs}
    finally:
        for _, run in runs:
            run.__exit__()


if __name__ == "__main__":
    main()
