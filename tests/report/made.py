"""Folders of runs and studies as fedit leaves them, written by hand: small, quick, and as odd as wished."""

import json
import random
from pathlib import Path
from typing import Any

from fedit.corpus import read_data
from fedit.partitioned import describe
from fedit.recipe import dump_plan
from tests.tiny import tiny

CATEGORIES = [
    "brainstorming", "classification", "closed_qa", "creative_writing",
    "general_qa", "information_extraction", "open_qa", "summarization",
]  # fmt: skip
ARMS = {
    "base": ("base", 0.04), "local": ("local", 0.24), "fedit": ("federated", 0.62),
    "fedprox": ("federated", 0.60), "central": ("central", 0.66),
}  # fmt: skip
HOSTILE = (
    "<script>window.__pwned = 1</script><img src=x onerror='window.__pwned=1'>"
    "<svg onload=window.__pwned=1></svg><a href='javascript:window.__pwned=1'>x</a>"
    "</textarea></style></script><iframe src='https://example.invalid/'></iframe>"
    "\x1b[31mred\x1b[0m\x07 \u202egnol\u202c {{ 7 * 7 }} {% raw %} \ud800 \x00 & \" ' ` $x^{"
)


def run(
    path: Path,
    *,
    rounds: int = 3,
    level: float = 2.0,
    items: list[Any] | None = None,
    **changes: Any,
) -> Path:
    """A finished run of `tests.tiny` whose loss falls to `level`; with `items` it was scored."""
    plan = tiny(path, federation={"rounds": rounds}, partition=PARTITION, **changes)
    path.mkdir(parents=True)
    (path / "plan.yaml").write_text(dump_plan(plan))
    sizes = {client: len(rows) for client, rows in describe(plan).parts.rows.items()}
    environment = {
        "run": path.name,
        "python": "3.11.7",
        "platform": "Linux",
        "threads": 1,
        "device": "cpu",
        "versions": {"fedit": "0.1.0", "torch": "2.13.0"},
        "data": read_data(plan).hashes,
        "base": "1f" * 32,
        "parameters": {"trained": 155648, "all": 1205376},
        "clients": sizes,
    }
    (path / "environment.json").write_text(json.dumps(environment))
    records = [_record(round, rounds, level) for round in range(rounds + 1)]
    (path / "journal.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if items is not None:
        (path / "scores.json").write_text(
            json.dumps({"round": rounds, "seconds": 4.2, "items": items})
        )
    return path


PARTITION = {"by": "shards", "clients": 4, "shards": 2}


def _record(round: int, rounds: int, level: float) -> dict[str, Any]:
    loss = level + (5 - level) * 0.05 ** (round / rounds)
    by = {name: {"loss": loss * (0.8 + 0.05 * n)} for n, name in enumerate(CATEGORIES)}
    clients = {f"client-{n:02d}": {"loss": loss * (0.9 + 0.1 * n)} for n in range(4)}
    record: dict[str, Any] = {
        "round": round,
        "evaluation": {"loss": loss, "tokens": 100, "by": by, "clients": clients},
        "seconds": {"evaluate": 0.2},
        "memory_mib": 450.0,
        "time": 1_795_259_032.0,
    }
    if round:
        record |= {"loss": loss * 0.9, "tokens": 6000.0, "bytes_up": 3.1e6, "bytes_down": 3.2e6}
        record["seconds"] |= {"round": 1.1, "train": 1.0}
        record["failures"] = []
    return record


def answers(count: int, skill: float, seed: int = 0, text: str = "") -> list[dict[str, Any]]:
    """So many items, of which about `skill` are right, over all categories and two languages."""
    chance = random.Random(f"{skill} {seed}")
    found = []
    for number in range(count):
        category = CATEGORIES[number % len(CATEGORIES)]
        right = chance.random() < skill
        word = f"the answer {number}"
        found.append(
            {
                "where": f"dev:{number + 1}",
                "labels": {"category": category, "language": ("en", "es")[number % 3 == 2]},
                "question": f"What is asked of {category} in question {number}? {text}",
                "context": f"A passage that holds {word}." if number % 4 == 2 else "",
                "reference": word,
                "answer": (word if right else f"something else {number % 7}") + text,
                "correct": right,
                "f1": 1.0 if right else round(0.5 * chance.random(), 3),
                "loss": 5.0,
                "tokens": 4,
            }
        )
    return found


def study(
    path: Path,
    *,
    seeds: int = 2,
    items: int = 32,
    rounds: int = 3,
    clients: int = 2,
    text: str = "",
) -> Path:
    """A finished study of five arms; `text` stands in every question and answer, and names one client."""
    path.mkdir(parents=True)
    (path / "study.yaml").write_text(f"name: made\nplan: demo.yaml\nseeds: {list(range(seeds))}\n")
    names = [f"client-{n:02d}" for n in range(clients)]
    for seed in range(seeds):
        for arm, (kind, skill) in ARMS.items():
            if kind == "local":
                for n, client in enumerate(names):
                    own = answers(items, skill + 0.03 * n, seed, text)
                    run(path / f"seed-{seed}" / arm / client, rounds=rounds, level=3.4, items=own)
            elif kind != "base":
                own = answers(items, skill, seed, text)
                run(path / f"seed-{seed}" / arm, rounds=rounds, level=2.5 - skill, items=own)
    (path / "base").mkdir()
    (path / "base" / "scores.json").write_text(
        json.dumps({"items": answers(items, 0.04, text=text)})
    )
    (path / "summary.json").write_text(json.dumps(summary(seeds, items, names, text)))
    return path


def estimate(mean: float, half: float = 0.04) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summary(seeds: int, items: int, clients: list[str], text: str = "") -> dict[str, Any]:
    """What such a study's summary.json holds."""
    groups = ["all", *(f"category/{name}" for name in CATEGORIES), "language/en", "language/es"]
    arms = []
    for arm, (kind, skill) in ARMS.items():
        metrics = {}
        for place, group in enumerate(groups):
            level = min(0.97, max(0.005, skill * (1 + 0.09 * ((place * 5) % 7 - 3) * (place > 0))))
            metrics[group] = {
                "em": estimate(level),
                "f1": estimate(min(0.98, level + 0.07)),
                "loss": estimate(3.4 - 2.6 * level, 0.1),
            }
        runs = {"base": 1, "local": len(clients) * seeds}.get(kind, seeds)
        rate = None if kind == "base" else 3e-3
        arms.append(
            {
                "name": arm,
                "kind": kind,
                "runs": runs,
                "lr": rate,
                "samples": 0 if kind == "base" else 6400,
                "metrics": metrics,
            }
        )
    ends = {
        "best": {"seed": 0, "client": clients[-1], "value": 0.29},
        "worst": {"seed": seeds - 1, "client": clients[0], "value": 0.19},
    }
    own = {"own": {"em": 0.5, "f1": 0.55}, "others": {"em": 0.08, "f1": 0.13}}
    both = {"own": {"em": 0.64, "f1": 0.7}, "others": {"em": 0.61, "f1": 0.68}}
    return {
        "name": "made",
        "seeds": list(range(seeds)),
        "items": items,
        "date": "2026-11-21",
        "machine": {"cores": 2, "platform": "Linux"},
        "seconds": 812.5,
        "arms": arms,
        "spread": {"local": {"em": ends, "f1": ends}},
        "differences": [
            {
                "arm": "fedit",
                "over": "local",
                "em": estimate(0.38, 0.05),
                "f1": estimate(0.37, 0.05),
            }
        ],
        "ratios": [
            {
                "arm": "fedit",
                "over": "central",
                "em": estimate(0.94, 0.04),
                "f1": estimate(0.95, 0.03),
            }
        ],
        "clients": [
            {
                "seed": seed,
                "client": client + text[:200],
                "own": CATEGORIES[2 * n % 8 : 2 * n % 8 + 2],
                "rows": 210 + 7 * n,
                "arms": {"local": own, "fedit": both, "fedprox": both, "central": both},
            }
            for seed in range(seeds)
            for n, client in enumerate(clients)
        ],
        "cost": [
            {
                "arm": arm,
                "seed": seed,
                "client": client,
                "train_seconds": 31.0,
                "evaluate_seconds": 7.5,
                "tokens": 61_000,
                "bytes_up": 31.5e6 if kind == "federated" else 0,
                "bytes_down": 31.9e6 if kind == "federated" else 0,
            }
            for arm, (kind, _) in ARMS.items()
            if kind != "base"
            for seed in range(seeds)
            for client in (clients if kind == "local" else [None])
        ],
    }
