"""What a client costs beside its training, and a population: python benchmarks/clients.py [--quick]

Each population runs in a process of its own: the start (read, divide, load, tokenise, the rest), a start
from the same folder again, and for each client of a round the seconds in its optimizer step (forward,
backward, step) against all that is not. All populations share the same rows, so of 10,000 clients each has
one row to learn and of 100 each a whole batch: compare what is not the step.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

QUICK = sys.argv[1:] == ["--quick"]
POPULATIONS = (100,) if QUICK else (100, 1_000, 10_000)
ROWS, COHORT, ROUNDS = 10_000, 100, 5
SHAPE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "initializer_range": 0.1,
}
PARTS = {
    "read": "read_data",
    "divide": "divide",
    "load": "make_base",
    "attach": "make_adapter",
}


def main() -> None:
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, one thread; {ROWS:,} rows,"
    )
    print(f"cohorts of {COHORT}, one step a client; medians over {ROUNDS} rounds after a first one")
    for population in POPULATIONS:
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder, "rows.jsonl")
            write_rows(rows)
            command = [sys.executable, __file__, str(population), str(rows)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
        for name in ("start", "start again"):
            parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in found[name].items())
            print(f"{population:>6,} clients: {name}: {parts} s")
        print(
            f"{population:>6,} clients: a client: step {found['step']:.2f} ms, "
            f"all else {found['else']:.2f} ms; peak {found['peak']:.0f} MiB, "
            f"of which {found['peak'] - found['loaded']:.0f} after libraries were loaded"
        )


def write_rows(path: Path) -> None:
    """Short rows in the microworld's words, each different."""
    from fedit.data.microworld import microworld

    base = [e for e in microworld() if len(e.turns[0].text) + len(e.answer) < 100]
    lines = [
        {
            "instruction": f"{base[i % len(base)].turns[0].text} ({i})",
            "output": base[i % len(base)].answer,
        }
        for i in range(ROWS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class Stopwatch:
    """Seconds inside functions, by name."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def around(self, owner: Any, attribute: str, name: str) -> None:
        function: Callable[..., Any] = getattr(owner, attribute)

        def timed(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds[name] += time.perf_counter() - began

        setattr(owner, attribute, timed)


def measured(population: int, rows: Path) -> dict[str, Any]:
    """One population's figures: seconds of a start, ms a client, MiB."""
    from fedit import make_plan
    from fedit.build import job
    from fedit.records import peak_memory_mib
    from fedit.runner import Run
    from fedit.train.prompts import Encoder
    from fedit.train.trainer import LocalTrainer

    plan = make_plan(
        {
            "model": {"config": SHAPE},
            "adapter": {"rank": 4},
            "data": {"train": str(rows)},
            "template": {"name": "plain", "max_length": 64},
            "partition": {"by": "iid", "clients": population},
            "federation": {"rounds": ROUNDS + 1, "cohort": COHORT},
            "local": {"steps": 1, "batch": 8, "lr": 1e-3},
            "threads": 1,
            "output": str(rows.with_name("run")),
        }
    )
    watch = Stopwatch()
    for name, function in PARTS.items():
        watch.around(job, function, name)
    watch.around(Encoder, "encode_all", "tokenise")
    watch.around(LocalTrainer, "_step", "step")
    loaded = peak_memory_mib()

    def start(resume: bool) -> tuple[Run, dict[str, float]]:
        watch.seconds.clear()
        began = time.perf_counter()
        opened = Run(plan, resume=resume)
        whole = time.perf_counter() - began
        return opened, {**watch.seconds, "rest": whole - watch.seconds.total(), "all": whole}

    opened, first = start(resume=False)
    with opened:
        steps, others = [], []
        began, before = time.perf_counter(), watch.seconds["step"]
        for done in opened.rounds():
            now, inside = time.perf_counter(), watch.seconds["step"]
            if done.round > 1:
                steps.append(inside - before)
                others.append(now - began - steps[-1])
            began, before = now, inside
    again, second = start(resume=True)
    again.__exit__()
    ms = 1000 / COHORT
    return {
        "start": first,
        "start again": second,
        "step": ms * sorted(steps)[len(steps) // 2],
        "else": ms * sorted(others)[len(others) // 2],
        "peak": peak_memory_mib(),
        "loaded": loaded,
    }


if __name__ == "__main__":
    if len(sys.argv) > 1 and not QUICK:
        print(json.dumps(measured(int(sys.argv[1]), Path(sys.argv[2]))))
    else:
        main()
