"""Seconds before anything happens: python benchmarks/start.py [REPEATS]"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
RECIPE = str(ROOT / "recipes" / "microworld.yaml")
PYTHON = [sys.executable, "-c"]
FEDIT = [sys.executable, "-m", "fedit.cli"]


def main(repeats: int) -> None:
    cases = {
        "python -c pass": [*PYTHON, "pass"],
        "python -c 'import torch'": [*PYTHON, "import torch"],
        "import fedit": [*PYTHON, "import fedit"],
        "fedit --help": [*FEDIT, "--help"],
        "fedit partition": [*FEDIT, "partition", RECIPE],
        "fedit run --dry-run": [*FEDIT, "run", RECIPE, "--dry-run"],
    }
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"seconds: median and least of {repeats}")
    for name, words in cases.items():
        tell(name, [whole(words) for _ in range(repeats)])
    for name, beginning in (("its first line", ""), ("its first scored round", "round 0")):
        tell(f"fedit run: {name}", [until(beginning) for _ in range(repeats)])


def tell(name: str, seconds: list[float]) -> None:
    print(f"{name:34} {median(seconds):6.2f} {min(seconds):6.2f}", flush=True)


def whole(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - began


def until(beginning: str) -> float:
    """Seconds until a run on the embedded model prints a line that begins so; then it is stopped."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*FEDIT, "run", RECIPE, "--output", f"{folder}/run"]
        began = time.perf_counter()
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if line.startswith(beginning):
                    break
            took = time.perf_counter() - began
            process.kill()
    return took


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
