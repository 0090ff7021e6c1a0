"""Memory of two workers that share a base, against one: python benchmarks/workers.py (Linux)"""

import os
import platform
import re
import tempfile
import threading
from datetime import date
from pathlib import Path

from fedit import make_study
from fedit.studies.jobs import Job
from fedit.studies.study import OpenStudy

SHAPE = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 14,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 2048,
}


def main() -> None:
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores")
    found = {workers: measured(workers) for workers in (1, 2)}
    for workers, (pss, rss) in found.items():
        print(f"{workers} workers: PSS {pss:,.0f} MiB, RSS {rss:,.0f} MiB")
    print(f"PSS of two over one: {found[2][0] / found[1][0]:.2f}")


def measured(workers: int) -> tuple[float, float]:
    """Proportional and resident MiB of the study's processes, at the most, while it trains."""
    with tempfile.TemporaryDirectory() as folder:
        plan = {
            "model": {"config": SHAPE},
            "data": {"train": "sample", "holdout": {"size": 4}, "limit": 60},
            "template": {"name": "plain", "max_length": 64},
            "partition": {"clients": 2},
            "federation": {"rounds": 2},
            "local": {"steps": 4, "batch": 2},
            "evaluation": {"max_new_tokens": 2},
        }
        arms = {"one": {}, "other": {}}
        study = make_study(
            {"plan": plan, "arms": arms, "workers": workers, "output": f"{folder}/study"}
        )
        most = (0.0, 0.0)
        pids: list[int] = []

        def began(job: Job, pid: int) -> None:
            pids.append(pid)

        stop = threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.wait(0.05):
                now = [memory(pid) for pid in {os.getpid(), *pids} if Path(f"/proc/{pid}").exists()]
                most = max(most, (sum(p for p, _ in now), sum(r for _, r in now)))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        with OpenStudy(study) as opened:
            list(opened.done(began))
        stop.set()
        watcher.join()
        return most


def memory(pid: int) -> tuple[float, float]:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0.0, 0.0
    kib = {key: int(re.search(rf"^{key}:\s+(\d+)", text, re.M)[1]) for key in ("Pss", "Rss")}
    return kib["Pss"] / 1024, kib["Rss"] / 1024


if __name__ == "__main__":
    main()
