"""What `fedit estimate` says against what a run then measures: python benchmarks/estimate.py [--quick]

Two shapes on real rows (Alpaca; $FEDIT_SHARED or ../shared); each estimate and each run in its own process.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from fedit import make_plan
from fedit.recipe import dump_plan

SHARED = Path(os.environ.get("FEDIT_SHARED") or Path(__file__).parents[2] / "shared")
SHAPES = {
    "1M": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4},
    "20M": {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 9},
}


QUICK = "--quick" in sys.argv  # the smaller shape only


def main() -> None:
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':4} {'':22} {'predicted':>14} {'measured':>14}  ratio")
    for name, shape in list(SHAPES.items())[: 1 if QUICK else None]:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, shape, Path(folder))


def compare(name: str, shape: dict[str, int], folder: Path) -> None:
    tree = {
        "model": {
            "config": {
                "model_type": "llama",
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": 4096,
                **shape,
            }
        },
        "data": {
            "train": str(SHARED / "data" / "alpaca" / "alpaca_en_1k.json"),
            "limit": 400,
            "holdout": {"size": 32},
        },
        "template": {"max_length": 256},
        "partition": {"by": "sizes", "clients": 10, "minimum": 20},
        "federation": {"rounds": 2 if name == "20M" else 8, "cohort": 3},
        "local": {"epochs": 1, "batch": 8},
        "threads": 1,
        "output": str(folder / "run"),
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(dump_plan(make_plan(tree)))
    said = json.loads(fedit("estimate", str(recipe), "--json"))
    began = time.perf_counter()
    fedit("run", str(recipe), "--quiet")
    wall = time.perf_counter() - began
    records = [json.loads(line) for line in (folder / "run" / "journal.jsonl").open()]
    rounds = records[1:]
    seconds = said["seconds"]
    pairs = {
        "training and server, s": (
            seconds["training"] + seconds["server"],
            sum(r["seconds"]["round"] for r in rounds),
        ),
        "evaluation, s": (
            seconds["evaluation"],
            sum(r["seconds"]["evaluate"] for r in records),
        ),
        "whole command, s": (seconds["total"], wall),
        "tokens": (said["tokens"]["run"], sum(r["tokens"] for r in rounds)),
        "bytes down": (said["bytes"]["down"]["run"], sum(r["bytes_down"] for r in rounds)),
        "bytes up": (said["bytes"]["up"]["run"], sum(r["bytes_up"] for r in rounds)),
        "peak memory, MiB": (said["memory"]["peak"] / 2**20, records[-1]["memory_mib"]),
    }
    for what, (predicted, measured) in pairs.items():
        print(
            f"{name:4} {what:22} {predicted:14,.1f} {measured:14,.1f}  {predicted / measured:.3f}",
            flush=True,
        )


def fedit(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fedit.cli", *words], check=True, capture_output=True, text=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
