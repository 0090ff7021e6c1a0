"""A plan from a recipe, from a dictionary, or from another plan and changes to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedit.config import Plan
from fedit.core.errors import InputError
from fedit.recipe.checked import Checked, check
from fedit.recipe.words import anchor_paths, change, override, read_tree


def load_plan(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a recipe (YAML 1.2, so `1e-4` is a number) and apply overrides such as "federation.rounds=5".

    Paths in the recipe that exist relative to its own folder, and not to the working folder, are taken
    from there. Raises InputError.
    """
    path = Path(path)
    tree = read_tree(path)
    if "plan" in tree:
        raise InputError(f"recipe {path}: is a study, as it has a plan of its own; use fedit study")
    for word in overrides:
        override(tree, word)
    anchor_paths(tree, path.parent)
    return make_plan(tree, f"recipe {path}")


def load_section(kind: type[Checked], path: Path | None, overrides: Sequence[str] = ()) -> Checked:
    """A section with a YAML file of its own, if any: a network, a site's policy. Raises InputError."""
    tree = read_tree(path, "file", named=False) if path else {}
    for word in overrides:
        override(tree, word)
    return check(kind, tree, str(path or "settings"))


def make_plan(tree: dict[str, Any], source: str = "plan") -> Plan:
    """Validate a nested dictionary as a Plan. Raises InputError, which lists every fault found."""
    return check(Plan, tree, source)


def changed(plan: Plan, changes: Mapping[str, Any], source: str) -> Plan:
    """The plan with dotted keys set to other values; steps take the place of epochs and the reverse."""
    tree = plan.model_dump()
    for key, value in changes.items():
        change(tree, key, value, f"{source}: {key}")
    for given, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"local.{given}" in changes and f"local.{other}" not in changes:
            tree["local"][other] = None
    return make_plan(tree, source)
