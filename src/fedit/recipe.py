"""From YAML and key=value words to a Plan, and back; every refusal names key, value, reason and remedy."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedit.config import Plan
from fedit.core.errors import InputError


def load_plan(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a recipe (YAML 1.2, so `1e-4` is a number) and apply overrides such as "federation.rounds=5".

    Paths in the recipe that exist relative to its own folder, and not to the working folder, are taken
    from there. Raises InputError.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"recipe {path}: cannot be read ({error}); give the path of a YAML file"
        ) from None
    tree = _parse(text, f"recipe {path}")
    tree.setdefault("name", re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_") or "run")
    for word in overrides:
        _override(tree, word)
    _anchor_paths(tree, path.parent)
    return make_plan(tree, f"recipe {path}")


def make_plan(tree: dict[str, Any], source: str = "plan") -> Plan:
    """Validate a nested dictionary as a Plan. Raises InputError, which lists every fault found."""
    try:
        return Plan.model_validate(tree)
    except ValidationError as error:
        faults = [_fault(e["loc"], e["msg"], e["input"]) for e in error.errors()]
        raise InputError("\n".join(f"{source}: {fault}" for fault in faults)) from None


def dump_plan(plan: Plan) -> str:
    """The whole plan as YAML, defaults included; reading it back gives an equal plan."""
    out = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(plan.model_dump(mode="json"), out)
    return out.getvalue()


def differences(old: Plan, new: Plan) -> list[str]:
    """Dotted keys in which two plans differ, as "key: old → new"."""
    left, right = _flat(old.model_dump()), _flat(new.model_dump())
    keys = sorted(left.keys() | right.keys())
    return [
        f"{key}: {left.get(key)!r} → {right.get(key)!r}"
        for key in keys
        if left.get(key) != right.get(key)
    ]


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        tree = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        raise InputError(f"{source}: not valid YAML: {error}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise InputError(
            f"{source}: must hold keys such as model: and data:, got {type(tree).__name__}"
        )
    return tree


def _override(tree: dict[str, Any], word: str) -> None:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise InputError(f"override {word!r}: write key=value, e.g. federation.rounds=5")
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.get(parent)
        if isinstance(below, str):  # the one-word form of a section, e.g. algorithm: fedprox
            below = {_ONE_WORD.get(parent, "name"): below}
        elif below is not None and not isinstance(below, dict):
            raise InputError(
                f"override {word!r}: {parent} holds {below!r}, which has no keys below it"
            )
        tree[parent] = below = {} if below is None else dict(below)
        tree = below
    try:
        tree[last] = YAML(typ="safe", pure=True).load(value)
    except (YAMLError, ValueError) as error:
        raise InputError(f"override {word!r}: the value is not valid YAML: {error}") from None


_ONE_WORD = {"adapter": "kind", "partition": "by"}

_PATH_KEYS = (("data", "train"), ("data", "test"), ("model", "base"), ("model", "tokenizer"))


def _anchor_paths(tree: dict[str, Any], folder: Path) -> None:
    for section, key in _PATH_KEYS:
        part = tree.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(value, str) and value != "sample":
            part[key] = _anchored(value, folder)


def _anchored(value: str, folder: Path) -> str:
    for start in (Path(), folder):
        found = (start / value).expanduser()
        if found.exists() or ("*" in value and any(found.parent.glob(found.name))):
            return str(found.absolute())
    return value


def _fault(loc: tuple[int | str, ...], message: str, value: Any) -> str:
    key = ".".join(str(part) for part in loc if part not in _TAGS)
    message = message.removeprefix("Value error, ")
    shown = "" if isinstance(value, dict) else f" (got {value!r})"
    return f"{key}: {message}{shown}" if key else message + shown


_TAGS = {
    "lora",
    "ia3",
    "prefix",
    "prompt",
    "bitfit",
    "full",
    "iid",
    "dirichlet",
    "shards",
    "key",
    "sizes",
}
_TAGS |= {"fedavg", "fedprox"}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
