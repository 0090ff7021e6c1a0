"""A study from its file, and the plans of its arms."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from fedit.config import Plan, Study
from fedit.core.errors import InputError
from fedit.recipe.checked import check
from fedit.recipe.plans import changed
from fedit.recipe.words import (
    PATH_KEYS,
    anchor_paths,
    anchored,
    change,
    read_tree,
    read_word,
)


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and apply overrides such as "seeds=[7,8]" or "plan.federation.rounds=5".

    `plan` is a mapping or the path of a recipe, which may lie beside the study. Raises InputError.
    """
    path = Path(path)
    tree = read_tree(path, "study")
    if isinstance(recipe := tree.get("plan"), str):
        place = Path(anchored(recipe, path.parent))
        tree["plan"] = read_tree(place)
        anchor_paths(tree["plan"], place.parent)
    for word in overrides:
        _override(tree, word)
    if isinstance(plan := tree.get("plan"), dict):
        plan.setdefault("name", tree["name"])
        anchor_paths(plan, path.parent)
    if isinstance(dev := tree.get("dev"), dict):
        for key in (".".join(keys) for keys in PATH_KEYS):
            if isinstance(dev.get(key), str):
                dev[key] = anchored(dev[key], path.parent)
    return make_study(tree, f"study {path}")


def make_study(tree: dict[str, Any], source: str = "study") -> Study:
    """Validate a nested dictionary as a Study, with the plan of every arm. Raises InputError."""
    study = check(Study, tree, source)
    scored = [(False, "")]
    if study.dev is not None:
        scored.append((True, " on dev"))
    for arm in study.arms:
        for dev, where in scored:
            arm_plan(study, arm, dev=dev, source=f"{source}: arms.{arm}{where}")
    for arm, changes in product(study.arms, grid(study)):
        arm_plan(study, arm, tried=changes, source=f"{source}: tune")
    return study


def arm_plan(
    study: Study,
    arm: str,
    *,
    dev: bool = False,
    tried: Mapping[str, Any] | None = None,
    source: str = "study",
) -> Plan:
    """The study's plan with an arm's changes, then those of `dev` and those that tuning tries."""
    arms = {key: value for key, value in study.arms[arm].items() if key != "kind"}
    alike = {"name": study.name, "threads": study.plan.threads or 1}
    return changed(
        study.plan,
        {**alike, **arms, **((study.dev or {}) if dev else {}), **(tried or {})},
        source,
    )


def grid(study: Study) -> list[dict[str, Any]]:
    """Every combination of the values that tuning tries."""
    return [dict(zip(study.tune, values, strict=True)) for values in product(*study.tune.values())]


def _override(tree: dict[str, Any], word: str) -> None:
    """As in a plan; below an arm, `dev` and `tune` the rest of the key is one of the plan's."""
    key, value = read_word(word)
    head, *rest = key.split(".")
    depth = {"arms": 2, "dev": 1, "tune": 1}.get(head)
    if depth is None or len(rest) < depth or not all(rest):
        change(tree, key, value, f"override {word!r}")
        return
    for parent in [head, *rest[: depth - 1]]:
        below = tree.get(parent)
        if not isinstance(below, dict | None):
            raise InputError(
                f"override {word!r}: {parent} holds {below!r}, which has no keys below it"
            )
        tree[parent] = below = {} if below is None else dict(below)
        tree = below
    tree[".".join(rest[depth - 1 :])] = value
