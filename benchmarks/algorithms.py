"""Every algorithm's seats, length and traffic: python benchmarks/algorithms.py

A table in Markdown. Seats are those that differ from FedAvg's; lines are the file's, without blank ones and
docstrings; bytes are a client's of the second round of a small run, as multiples of FedAvg's; kept is what a
client has at home, server what its state holds, both in adapters.
"""

import ast
import importlib
import tempfile
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedit import make_plan
from fedit.algorithms.fedavg import fedavg
from fedit.runner import Run

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 400,
}
SGD = {"optimizer": "sgd", "clip": None, "lr": 0.05}
PRIVATE = {"personal": ["lora_B"]}
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "fedavg": ("1602.05629", {}, {}),
    "fedprox": ("1812.06127", {}, {}),
    "scaffold": ("1910.06378", {}, SGD),
    "fedavgm": ("1909.06335", {}, {}),
    "fedadagrad": ("2003.00295", {}, {}),
    "fedyogi": ("2003.00295", {}, {}),
    "fedadam": ("2003.00295", {}, {}),
    "fednova": ("2007.07481", {}, {}),
    "feddyn": ("2111.04263", {}, {}),
    "fedsam": ("2206.02618", {}, {}),
    "ffa_lora": ("2403.12313", {}, {}),
    "rolora": ("2502.01755", {}, {}),
    "fedex_lora": ("2410.09432", {}, {}),
    "flora": ("2409.05976", {}, {}),
    "flexlora": ("2402.11505", {}, {}),
    "hetlora": ("2401.06432", {}, {}),
    "fedsa_lora": ("2410.01463", {}, {}),
    "fedrot_lora": ("2602.23638", {}, {}),
    "qfedavg": ("1905.10497", {}, {}),
    "afl": ("1902.00146", {}, {}),
    "term": ("2007.01162", {}, {}),
    "ditto": ("2012.04221", {}, {}),
    "pfedme": ("2006.08848", {}, {}),
    "perfedavg": ("2002.07948", {}, {}),
    "apfl": ("2003.13461", {}, {}),
    "fedper": ("1912.00818", PRIVATE, {}),
    "fedrep": ("2102.07078", PRIVATE, {}),
    "feddpa": ("2403.19211", {}, {}),
    "ifca": ("2006.04088", {}, {}),
}
FILES = {
    "fedadagrad": "fedopt",
    "fedyogi": "fedopt",
    "fedadam": "fedopt",
    "fedper": "fedrep",
}


def main() -> None:
    warnings.simplefilter("ignore")
    print("| algorithm | arXiv | seats | lines | up | down | kept | server |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    usual: dict[str, float] = {}
    for name, (paper, options, local) in METHODS.items():
        found = measured(name, options, local)
        usual = usual or found
        seats = ", ".join(found["seats"]) or "–"
        up, down = (f"{found[key] / usual[key]:.2f}" for key in ("up", "down"))
        link = f"[{paper}](https://arxiv.org/abs/{paper})"
        print(
            f"| {name} | {link} | {seats} | {lines(FILES.get(name, name))} | {up} | {down} | "
            f"{found['kept']:.2f} | {found['server']:.2f} |"
        )


def measured(name: str, options: dict[str, Any], local: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        plan = {
            "model": {"config": CONFIG},
            "data": {"train": "microworld", "holdout": {"size": 4}, "limit": 60},
            "template": {"name": "plain", "max_length": 64},
            "partition": {"clients": 3},
            "federation": {"rounds": 2},
            "local": {"steps": 1, "batch": 4, **local},
            "algorithm": {"name": name, **options},
            "evaluation": {"exactness": False},
            "output": f"{folder}/run",
        }
        with Run(make_plan(plan)) as run:
            *_, last = run.rounds()
            method, usual = run.job.algorithm, fedavg()
            clients = list(last.record["clients"].values())
            adapter = sum(t.nbytes for t in run.state.adapter.values())
            trees = [*run.state.public.values(), *run.state.private.values()]
            held = sum(t.nbytes for tree in trees for t in tree.values())
    return {
        "seats": [f.name for f in fields(method) if differs(f.name, method, usual)],
        "up": clients[0]["bytes_up"],
        "down": clients[0]["bytes_down"],
        "kept": clients[0].get("bytes_kept", 0) / adapter,
        "server": held / adapter,
    }


def differs(seat: str, method: Any, usual: Any) -> bool:
    return seat != "name" and getattr(method, seat) != getattr(usual, seat)


def lines(name: str) -> int:
    """Lines of code of a method's file."""
    path = Path(importlib.import_module(f"fedit.algorithms.{name}").__file__)
    text = path.read_text()
    told = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    numbered = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and number not in told for number, line in numbered)


if __name__ == "__main__":
    main()
