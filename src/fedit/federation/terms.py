"""What server and sites agree on before a run: the recipe without what is each one's own."""

import hashlib
import json
from pathlib import Path
from typing import Any

from fedit.config import Plan, Site
from fedit.recipe import changed, make_plan

OWN = ("output", "trackers", "threads", "name", "evaluation", "engine")
"""Sections that are the server's own: no site needs them, and they may change between restarts."""

NONE = "0" * 64
"""In the place of a hash that is not known yet."""


def shared(plan: Plan) -> dict[str, Any]:
    """The sections that sites carry out, as JSON values; of the data only how rows are read."""
    tree = plan.model_dump(mode="json", exclude=set(OWN))
    data, part = tree["data"], plan.partition
    data |= {"train": "", "holdout": None, "limit": None, "columns": None, "bad_rows": "refuse"}
    if data["test"] != "microworld":  # built in: a site can leave out rows that stand in the test
        data["test"] = None
    tree["partition"] = {"by": "iid", "clients": 1, "validation": part.validation}
    kept = ("rounds", "dropout", "weights")
    tree["federation"] = {key: getattr(plan.federation, key) for key in kept}
    tree["model"]["device"] = "auto"
    return tree


def recipe_hash(tree: dict[str, Any]) -> str:
    """sha256 of what is shared: equal means the same recipe."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def at_a_site(tree: dict[str, Any], data: str, folder: Path, site: Site) -> Plan:
    """The plan by which a site trains its own rows in its worker. Raises InputError."""
    reading = {"train": data, "columns": site.columns, "bad_rows": site.bad_rows}
    tree = {**tree, "output": str(folder), "threads": site.threads}
    tree["data"] = {**tree["data"], **reading}
    tree["model"] = {**tree["model"], "device": site.device}
    plan = make_plan(tree, "recipe of the server")
    if site.micro_batch is None:
        return plan
    fits = _largest_divisor(plan.local.batch, site.micro_batch)
    return changed(plan, {"local.micro_batch": fits}, "micro_batch")


def _largest_divisor(batch: int, most: int) -> int:
    """What divides a batch into equal parts of at most so many rows: a site cannot know the recipe's batch.

    >>> _largest_divisor(12, 5), _largest_divisor(4, 16), _largest_divisor(7, 2)
    (4, 4, 1)
    """
    return next(n for n in range(min(batch, most), 0, -1) if batch % n == 0)


def with_own_base(plan: Plan, site: Site) -> Plan:
    """The plan with the site's copy of the base, where both have one: a model made on the spot has none."""
    if site.base is None or plan.model.base is None:
        return plan
    return changed(plan, {"model.base": site.base, "model.revision": None}, "base")
