"""The smallest study that is whole: two clients alone, a federation and all rows together, from files."""

import json
from pathlib import Path
from typing import Any

from fedit import Study, make_study
from fedit.data.microworld import microworld
from tests.tiny import CONFIG


def write_rows(folder: Path) -> dict[str, str]:
    """train.jsonl (64 rows of four categories), test.jsonl (8) and dev.jsonl (8); their paths."""
    rows = [
        {
            "instruction": example.turns[0].text,
            "context": example.turns[0].context,
            "response": example.answer,
            "category": f"c{i % 4}",
            "language": ("en", "es")[i % 8 // 4],
        }
        for i, example in enumerate(microworld()[:80])
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", rows[:64]), ("test", rows[64:72]), ("dev", rows[72:])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text)
    return {name: str(folder / f"{name}.jsonl") for name in ("train", "test", "dev")}


def tree(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study over those rows, to lie in `folder`/study."""
    files = write_rows(folder)
    return {
        "name": "small",
        "plan": {
            "name": "small",
            "model": {"config": CONFIG},
            "adapter": {"rank": 2},
            "data": {"train": files["train"], "test": files["test"]},
            "template": {"name": "plain", "max_length": 96},
            "partition": {"by": "shards", "clients": 4},
            "federation": {"rounds": 3, "cohort": 2},
            "local": {"steps": 2, "batch": 4, "lr": 1e-2},
            "evaluation": {"max_new_tokens": 8},
        },
        "seeds": [0],
        "clients": 2,
        "arms": {
            "base": {},
            "local": {"local.lr": 5e-3},
            "fedit": {},
            "central": {"local.lr": 5e-3},
        },
        "dev": {"data.test": files["dev"]},
        "tune": {"local.lr": [1e-3, 1e-2]},
        "output": str(folder / "study"),
        **changes,
    }


def small(folder: Path, **changes: Any) -> Study:
    return make_study(tree(folder, **changes))


def bytes_of(folder: Path) -> dict[str, Any]:
    """Every adapter's bytes and every run's items, by place."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("adapter_model.safetensors")
    }
    for path in folder.rglob("scores.json"):
        found[str(path.relative_to(folder))] = json.loads(path.read_text())["items"]
    return found
