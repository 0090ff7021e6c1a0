"""The smallest plan that is a whole federation, for tests that need a real run."""

import json
from pathlib import Path
from typing import Any

from fedit import Plan, make_plan, run

CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 400,
    "initializer_range": 0.1,
}


def tiny(output: Path, **changes: Any) -> Plan:
    """Four clients, two a round, three rounds of two steps; `changes` extend sections, or replace them."""
    tree: dict[str, Any] = {
        "model": {"config": CONFIG},
        "adapter": {"rank": 2},
        "data": {"train": "microworld", "holdout": {"size": 8}, "limit": 80},
        "template": {"name": "plain", "max_length": 96},
        "partition": {"clients": 4},
        "federation": {"rounds": 3, "cohort": 2},
        "local": {"steps": 2, "batch": 4, "lr": 1e-2},
        "threads": 1,
        "output": str(output),
    }
    for key, value in changes.items():
        both = key != "partition" and isinstance(value, dict) and isinstance(tree.get(key), dict)
        tree[key] = {**tree[key], **value} if both else value
    return make_plan(tree)


def finish(plan: Plan, *, resume: bool = False) -> bytes:
    """Run to the end; the bytes of the final adapter."""
    for _ in run(plan, resume=resume):
        pass
    return adapter_bytes(Path(plan.folder))


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
