"""Cost against model size, sequence length, cohort, population and rank: python benchmarks/growth.py

Each point is a run of one thread in a process of its own. Seconds are medians of rounds after the first, of
a client's training or of a whole round; memory is the peak beyond what libraries take; parameters are without
embedding and head. An exponent is the slope of logarithms, over all points and of the last two: 1 is in
proportion, 0 is no growth. One SVG for each.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS, ROUNDS = 10_000, 3
SHORT = {"data": {"limit": 200, "holdout": {"size": 4}}, "local": {"steps": 2, "batch": 8}}
QUIET = {"PYTHONWARNINGS": "ignore", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
INK = "#2a5599"


@dataclass(frozen=True)
class Growth:
    """One thing that grows: its values, the plan's sections at each, and whose seconds are shown."""

    name: str
    of: str
    points: dict[int, dict[str, Any]]
    rows: str = "short"
    shared: dict[str, Any] = field(default_factory=lambda: SHORT)


def shape(width: int, layers: int = 4) -> dict[str, Any]:
    return {
        "config": {
            "model_type": "llama",
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 1024,
            "max_position_embeddings": 4096,
        }
    }


def size(width: int, layers: int = 4) -> int:
    """Parameters of a shape without embedding and head: attention, gated MLP, norms."""
    return layers * (3 * width**2 + 9 * width**2 + 2 * width) + width


ALL = {"holdout": {"size": 4}}
GROWTHS = (
    Growth(
        "parameters",
        "client",
        {size(width): {"model": shape(width)} for width in (128, 256, 512, 1024)},
    ),
    Growth(
        "tokens of a row",
        "client",
        {n: {"template": {"name": "plain", "max_length": n}} for n in (64, 256, 1024, 2048)},
        rows="long",
        shared={
            "data": {"limit": 20, "holdout": {"size": 4}},
            "partition": {"clients": 4},
            "federation": {"cohort": 2},
        },
    ),
    Growth(
        "clients of a round",
        "round",
        {n: {"federation": {"cohort": n}} for n in (4, 16, 64, 256)},
        shared={"model": shape(64, 2), "partition": {"clients": 256}, "data": ALL},
    ),
    Growth(
        "clients in all",
        "round",
        {n: {"partition": {"clients": n}} for n in (100, 1_000, 10_000)},
        shared={"model": shape(64, 2), "data": ALL, "local": {"steps": 1, "batch": 1}},
    ),
    Growth(
        "rank",
        "client",
        {n: {"adapter": {"rank": n, "targets": "all-linear"}} for n in (1, 4, 16, 64, 256)},
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the drawings (default: docs/growth)")
    parser.add_argument("--quick", action="store_true", help="two points each, one round")
    asked = parser.parse_args()
    out = asked.out or ROOT / ("build" if asked.quick else "docs") / "growth"
    out.mkdir(parents=True, exist_ok=True)
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, one thread")
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder))
        for growth in GROWTHS:
            values = list(growth.points)[: 2 if asked.quick else None]
            found = [point(growth, value, Path(folder), asked.quick) for value in values]
            report(growth, values, found)
            draw(growth, values, found, out / f"{growth.name.replace(' ', '-')}.svg")


def write_rows(folder: Path) -> None:
    """Rows in the microworld's words, each different: short ones, and some longer than any limit."""
    from fedit.data.microworld import microworld

    examples = [e for e in microworld() if len(e.turns[0].text) + len(e.answer) < 100]
    said = [(e.turns[0].text, e.answer) for e in examples]
    short = [(f"{said[i % len(said)][0]} ({i})", said[i % len(said)][1]) for i in range(ROWS + 4)]
    text = " ".join(" ".join(pair) for pair in said)
    texts = [f"{i} {text[100 * i :][:8_000]}" for i in range(20)]
    long = [(one, one) for one in texts]
    for name, pairs in (("short", short), ("long", long)):
        lines = (json.dumps({"instruction": one, "output": other}) for one, other in pairs)
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def point(growth: Growth, value: int, folder: Path, quick: bool) -> dict[str, float]:
    """Seconds, MiB and KiB of one plan, from a process of its own."""
    tree: dict[str, Any] = {
        "model": shape(256),
        "adapter": {"rank": 8},
        "template": {"name": "plain", "max_length": 64},
        "partition": {"clients": 8},
        "local": {"steps": 1, "batch": 2},
        "evaluation": {"every": 1000},
        "threads": 1,
        "output": str(folder / f"{growth.name}-{value}"),
        "federation": {"cohort": 4},
        **growth.shared,
        **growth.points[value],
    }
    tree["federation"] = {"rounds": 2 if quick else ROUNDS + 1, **tree["federation"]}
    tree["data"] = {"train": str(folder / f"{growth.rows}.jsonl"), **tree["data"]}
    command = [sys.executable, __file__, "--measure", json.dumps(tree)]
    quiet = os.environ | QUIET
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(tree: dict[str, Any]) -> dict[str, float]:
    """What one run takes: medians over its rounds after the first."""
    from fedit import Run, make_plan
    from fedit.records import peak_memory_mib

    loaded = peak_memory_mib()
    with Run(make_plan(tree)) as run:
        records = [done.record for done in run.rounds()][2:]
    cohorts = [len(record["cohort"]) for record in records]
    trained = [record["seconds"]["train"] for record in records]
    return {
        "round": statistics.median(record["seconds"]["round"] for record in records),
        "client": statistics.median(s / n for s, n in zip(trained, cohorts, strict=True)),
        "memory": peak_memory_mib() - loaded,
        "up": records[-1]["bytes_up"] / cohorts[-1] / 1024,
    }


def report(growth: Growth, values: list[int], found: list[dict[str, float]]) -> None:
    print(f"\n{growth.name:>18} {'ms a ' + growth.of:>12} {'MiB':>8} {'KiB up':>9}")
    for value, one in zip(values, found, strict=True):
        seconds = one[growth.of]
        print(f"{value:18,} {1000 * seconds:12.2f} {one['memory']:8.0f} {one['up']:9.1f}")
    slopes = [exponents(values, [one[key] for one in found]) for key in (growth.of, "memory", "up")]
    for name, place in (("exponent", 0), ("of the last two", 1)):
        shown = [slope[place] for slope in slopes]
        print(f"{name:>18} {shown[0]:12.2f} {shown[1]:8.2f} {shown[2]:9.2f}", flush=True)


def exponents(values: list[int], costs: list[float]) -> tuple[float, float]:
    """The slope of log cost over log value: least squares over all points, and of the last two."""
    x, y = [math.log(value) for value in values], [math.log(max(cost, 1e-9)) for cost in costs]
    return statistics.linear_regression(x, y).slope, (y[-1] - y[-2]) / (x[-1] - x[-2])


def draw(growth: Growth, values: list[int], found: list[dict[str, float]], path: Path) -> None:
    """Seconds and memory over the value, both axes logarithmic; text stays text."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(7, 2.7), layout="constrained", facecolor="white")
    shown = (
        (f"seconds a {growth.of}", [one[growth.of] for one in found]),
        ("memory, MiB", [one["memory"] for one in found]),
    )
    for axes, (name, costs) in zip(figure.subplots(1, 2), shown, strict=True):
        axes.loglog(values, costs, color=INK, lw=2, marker="o", ms=5)
        axes.set_title(f"{name}: exponent {exponents(values, costs)[0]:.2f}", size=10, loc="left")
        axes.set_xlabel(growth.name)
        axes.grid(color="#dddddd", lw=0.8)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=9)
        axes.set_xticks(values)
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        low, high = min(costs), max(costs)
        axes.set_ylim(min(low / 1.3, high / 10), high * 1.3)  # a flat cost looks flat
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
    settings = {"svg.fonttype": "none", "svg.hashsalt": "fedit", "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(settings):
        figure.savefig(path, format="svg", metadata={"Date": None})


def short(value: float) -> str:
    return next(
        f"{value / n:.3g}{unit}" for n, unit in ((1e6, "M"), (1e3, "k"), (1, "")) if value >= n
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measured(json.loads(sys.argv[2]))))
    else:
        main()
