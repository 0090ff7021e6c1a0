"""What server and sites agree on before a run: the recipe without what is each one's own."""

import hashlib
import json
from pathlib import Path
from typing import Any

from fedit.config import Plan
from fedit.recipe import make_plan

OWN = ("output", "trackers", "threads", "name", "evaluation", "engine")
"""Sections that are the server's own: no site needs them, and they may change between restarts."""

NONE = "0" * 64
"""In the place of a hash that is not known yet."""


def shared(plan: Plan) -> dict[str, Any]:
    """The sections that sites carry out, as JSON values; of the data only how rows are read."""
    tree = plan.model_dump(mode="json", exclude=set(OWN))
    data, part = tree["data"], plan.partition
    data |= {"train": "", "holdout": None, "limit": None}
    if data["test"] != "microworld":  # built in: a site can leave out rows that stand in the test
        data["test"] = None
    tree["partition"] = {"by": "iid", "clients": 1, "validation": part.validation}
    tree["federation"] = {"rounds": plan.federation.rounds, "dropout": plan.federation.dropout}
    tree["model"]["device"] = "auto"
    return tree


def recipe_hash(tree: dict[str, Any]) -> str:
    """sha256 of what is shared: equal means the same recipe."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def at_a_site(
    tree: dict[str, Any], data: str, folder: Path, device: str, threads: int | None
) -> Plan:
    """The plan by which a site trains its own rows in its worker. Raises InputError."""
    tree = {**tree, "output": str(folder), "threads": threads}
    tree["data"] = {**tree["data"], "train": data}
    tree["model"] = {**tree["model"], "device": device}
    return make_plan(tree, "recipe of the server")
