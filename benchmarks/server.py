"""The server's part of a round against the memory's bandwidth: python benchmarks/server.py [--quick] (Linux)

Updates in fp32 pass the gate, are added up in fp64 by groups, and the server makes its step. The bandwidth is
a triad's over arrays far larger than any cache (a + 3 b → c in fp64, 24 bytes a number). Ours counts what the
grouped sum must move for each number: 20 bytes an update (4 read, 8 of the sum read and written) and 24 a
group to merge (16 read, 8 written); the gate's reading is not counted, nor the server's step. In brackets
without the merges, as if there were no groups. Both take turns within one run; medians. Memory is the peak
beyond what was there before the round (the updates and the old adapter), in fp32 adapters.
"""

import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from fedit.algorithms.fedavg import fedavg
from fedit.core.messages import ADAPTER, Order, State, Update
from fedit.core.shares import cut, shares
from fedit.core.tree import Tree

REPEATS = 1 if "--quick" in sys.argv else 5
BIG = 20_000_000  # numbers in each of the triad's arrays: 160 MB


def main() -> None:
    torch.set_num_threads(1)
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, one thread")
    large = {f"layer.{i}": torch.randn(8, 3125) for i in range(200)}
    lora = {f"layer.{i}": torch.randn(8, 250) for i in range(100)}
    for clients, tree in ((100, large), (1000, lora)):
        report(clients, tree)


def report(clients: int, tree: Tree) -> None:
    numbers = sum(tensor.numel() for tensor in tree.values())
    a, b = (torch.rand(BIG, dtype=torch.float64) for _ in range(2))
    c = torch.empty_like(a)
    updates = [{name: torch.randn_like(t) for name, t in tree.items()} for _ in range(4)]
    before = memory(afresh=True)
    one_round(clients, tree, updates)
    adapters = (memory() - before) / (4 * numbers)
    seconds = {"triad": list[float](), "ours": list[float]()}
    for _ in range(REPEATS):
        seconds["triad"].append(timed(lambda: torch.add(a, b, alpha=3.0, out=c)))
        seconds["ours"].append(timed(lambda: one_round(clients, tree, updates)))
    found = {name: statistics.median(values) for name, values in seconds.items()}
    triad, single = 24 * BIG / found["triad"], 20 * numbers * clients / found["ours"]
    ours = single + 24 * numbers * len(cut(["c"] * clients)) / found["ours"]
    print(
        f"{clients:,} clients, {numbers:,} numbers in {len(tree)} tensors: {found['ours']:.2f} s "
        f"({min(seconds['ours']):.2f}–{max(seconds['ours']):.2f}); {ours / 1e9:.1f} of "
        f"{triad / 1e9:.1f} GB/s: {ours / triad:.0%} ({single / triad:.0%}); {adapters:.1f} adapters"
    )


def one_round(clients: int, tree: Tree, updates: list[Tree]) -> State:
    """What rounds() does with replies: gate, combine, step."""
    algorithm, names = fedavg(), frozenset(tree)
    weights = {f"c{i}": 1.0 + i for i in range(clients)}
    order = Order(0, 0, 0, {ADAPTER: tree}, weights, names, names)
    replies = (
        Update(client, 0, 0, {ADAPTER: updates[i % len(updates)]})
        for i, client in enumerate(order.cohort)
    )
    total = algorithm.combine.start(order)
    for share in shares(replies, order, algorithm):
        total = algorithm.combine.merge(total, share.total)
    return algorithm.server.step(State(0, order.public), total, order)


def timed(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def memory(*, afresh: bool = False) -> int:
    """Peak resident memory in bytes, counted afresh from now on if asked."""
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+)", status, re.M)[1]) * 1024


if __name__ == "__main__":
    main()
