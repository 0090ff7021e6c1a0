"""Seconds to share 15,000 rows out to 100 clients, by method: python benchmarks/partition.py [--quick]"""

import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import date

from fedit.core.examples import Example
from fedit.core.seeds import generator
from fedit.data import partition
from fedit.data.columns import labels
from fedit.data.microworld import microworld
from fedit.data.skew import skew

ROWS, CLIENTS = 15_000, 100
REPEATS = 1 if "--quick" in sys.argv else 3


def main() -> None:
    base = microworld()
    rows: list[Example] = [base[i % len(base)] for i in range(ROWS)]
    found = labels(rows, "category")
    labels(rows[:100], "@similarity")  # scikit-learn is imported here, once
    methods: dict[str, Callable[[], object]] = {
        "iid": lambda: partition.iid(ROWS, CLIENTS, generator(0)),
        "dirichlet over category": lambda: partition.dirichlet(found, CLIENTS, 0.5, generator(0)),
        "two category shards": lambda: partition.shards(found, CLIENTS, 2, generator(0)),
        "sizes": lambda: partition.sizes(ROWS, CLIENTS, 0.5, generator(0)),
        "key": lambda: partition.by_key([str(i % CLIENTS) for i in range(ROWS)]),
    }
    for column in ("@length", "@script", "@similarity"):
        methods[f"dirichlet over {column}"] = lambda column=column: partition.dirichlet(
            labels(rows, column), CLIENTS, 0.5, generator(0)
        )
    parts = partition.dirichlet(found, CLIENTS, 0.5, generator(0))
    methods["at least 40 rows each"] = lambda: partition.at_least(parts, 40, generator(0))
    methods["skew of the result"] = lambda: skew(parts.rows, found)
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores; best of {REPEATS}, seconds"
    )
    for name, method in methods.items():
        print(f"{name:28} {min(timed(method) for _ in range(REPEATS)):.3f}")


def timed(method: Callable[[], object]) -> float:
    began = time.perf_counter()
    method()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
