"""What a network costs beyond training: python benchmarks/network.py [--mib 20] [--sites 3] [--rounds 8]

Real processes on loopback under mutual TLS, all weights of a small model as payload; beside it the same plan
with every message packed in one process. Memory is the largest resident size of each process.
"""

import argparse
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import psutil

FEDIT = [sys.executable, "-m", "fedit.cli"]
HIDDEN = {True: 256, False: 1024}  # of small payloads and of large ones


def main(mib: int, sites: int, rounds: int) -> None:
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"payload {mib} MiB each way, {sites} sites, median of rounds 2 to {rounds}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        path, names = Path(folder), [f"site-{n}" for n in range(sites)]
        recipe = written(path, names, mib, rounds)
        alone = ["run", str(recipe), "engine.kind=loopback", "--output", str(path / "alone")]
        subprocess.run([*FEDIT, *alone, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        usual = beyond(path / "alone", all_at_once=False)
        peaks = federate(path, names, recipe)
        ours = beyond(path / "run", all_at_once=True)
    print(
        f"seconds a round beyond training: network {ours:.2f}, packed in one process {usual:.2f}, "
        f"ratio {ours / usual:.2f}"
    )
    for role, peak in sorted(peaks.items()):
        print(
            f"peak of the {role}: {peak / 2**20:,.0f} MiB, {peak / 2**20 / mib:.1f} times the payload"
        )


def written(path: Path, names: list[str], mib: int, rounds: int) -> Path:
    """Data, kits and a recipe whose payload is of the size."""
    (path / "data").mkdir()
    for name in names:
        rows = [{"instruction": f"{name} {n}?", "response": "yes"} for n in range(8)]
        (path / "data" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    members = {"host": "127.0.0.1", "port": port, "sites": names}
    (path / "federation.yaml").write_text(json.dumps(members))
    kits = ["provision", str(path / "federation.yaml"), "--output", str(path / "kits")]
    subprocess.run([*FEDIT, *kits], check=True, stdout=subprocess.DEVNULL)
    hidden, wanted = HIDDEN[mib <= 100], mib * 2**20 // 4
    layer = 4 * hidden**2 + 3 * hidden * 2 * hidden + 2 * hidden
    layers = max(1, (wanted - 2 * 512 * hidden) // layer)
    plan = {
        "model": {"config": {
            "model_type": "llama", "hidden_size": hidden, "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 4,
            "vocab_size": 512, "initializer_range": 0.1,
        }},
        "adapter": {"kind": "full"},
        "data": {"train": str(path / "data")},
        "template": {"name": "plain", "max_length": 64},
        "partition": {"by": "key", "column": "file"},
        "federation": {"rounds": rounds},
        "local": {"steps": 1, "batch": 1, "lr": 1e-3, "optimizer": "sgd"},
        "evaluation": {"every": rounds},
        "threads": 1,
    }  # fmt: skip
    (path / "recipe.yaml").write_text(json.dumps(plan))
    return path / "recipe.yaml"


def federate(path: Path, names: list[str], recipe: Path) -> dict[str, int]:
    """Run it over the network; the peak of each kind of process, in bytes."""
    peaks: dict[str, int] = {}
    commands = [["join", str(path / "kits" / n), "--data", str(path / "data" / f"{n}.jsonl"),
                 "threads=1"] for n in names]  # fmt: skip
    serve = ["server", str(path / "kits" / "server"), str(recipe), "--output", str(path / "run")]
    with open(path / "log", "ab") as log:
        members = [subprocess.Popen([*FEDIT, *words], stdout=log, stderr=log) for words in commands]
        server = subprocess.Popen([*FEDIT, *serve], stdout=log, stderr=log)
        try:
            while server.poll() is None:
                look(peaks, path / "kits")
                time.sleep(0.05)
        finally:
            for member in members:
                member.send_signal(signal.SIGINT)
            for member in members:
                member.wait()
    if server.returncode:
        sys.exit((path / "log").read_text()[-2000:])
    return peaks


def look(peaks: dict[str, int], kits: Path) -> None:
    """Note how large each process of the kits is."""
    roles = {
        "fedit.federation.worker": "site's worker",
        "worker_process": "site's job",
        "client_train": "site's carrier",
        "runner_process": "server's job",
        "server_train": "server's carrier",
        "fedit.cli server": "server",
    }
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if str(kits) not in words:
                continue
            for mark, role in roles.items():
                if mark in words:
                    peaks[role] = max(peaks.get(role, 0), process.memory_info().rss)
                    break
        except psutil.Error:
            continue


def beyond(run: Path, all_at_once: bool) -> float:
    """Median seconds of a round in which no client trained: sites do side by side, simulated ones in turn."""
    found = []
    for line in (run / "journal.jsonl").read_text().splitlines()[2:]:
        record = json.loads(line)
        trained = [client["seconds"] for client in record["clients"].values()]
        spent = max(trained) if all_at_once else sum(trained)
        found.append(record["seconds"]["round"] - spent)
    return median(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=20)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    main(given.mib, given.sites, given.rounds)
