"""From YAML and key=value words to a Plan, and back; every refusal names key, value, reason and remedy."""

import difflib
import glob
import io
import os
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

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
    tree.setdefault("name", _slug(path.stem))
    for word in overrides:
        _override(tree, word)
    _anchor_paths(tree, path.parent)
    return make_plan(tree, f"recipe {path}")


def make_plan(tree: dict[str, Any], source: str = "plan") -> Plan:
    """Validate a nested dictionary as a Plan. Raises InputError, which lists every fault found."""
    try:
        return Plan.model_validate(tree)
    except ValidationError as error:
        faults = map(_fault, error.errors())
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
        if repr(left.get(key)) != repr(right.get(key))  # 1 is one client, 1.0 is all
    ]


def _parse(text: str, source: str) -> dict[str, Any]:
    tree = _yaml(text, source)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise InputError(
            f"{source}: must hold keys such as model: and data:, got {type(tree).__name__}"
        )
    return tree


def _yaml(text: str, source: str) -> Any:
    try:
        tree = YAML(typ="safe", pure=True).load(text)
        if any(isinstance(event, AliasEvent) for event in YAML(typ="safe", pure=True).parse(text)):
            raise InputError(f"{source}: YAML aliases (*name) are not read; write the value out")
        return tree
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise InputError(f"{source}: not valid YAML: {error.problem}{place}") from None
    except (YAMLError, ValueError) as error:
        raise InputError(f"{source}: not valid YAML: {error}") from None
    except RecursionError:
        raise InputError(f"{source}: not valid YAML: nested too deeply") from None


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:64] or "run"


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
    tree[last] = _yaml(value, f"override {word!r}")


_ONE_WORD = {"adapter": "kind", "partition": "by"}

_PATH_KEYS = (("data", "train"), ("data", "test"), ("model", "base"), ("model", "tokenizer"))


def _anchor_paths(tree: dict[str, Any], folder: Path) -> None:
    for section, key in _PATH_KEYS:
        part = tree.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        if (
            isinstance(part, dict)
            and isinstance(value, str)
            and value.strip() not in ("", "sample")
        ):
            part[key] = _anchored(value, folder)


def _anchored(value: str, folder: Path) -> str:
    for start in ("", folder):
        found = os.path.join(start, os.path.expanduser(value))
        if os.path.exists(found) or (glob.has_magic(value) and _matches(found)):
            return os.path.abspath(found)
    return value


def _matches(pattern: str) -> bool:
    try:
        return next(glob.iglob(pattern, recursive=True), None) is not None
    except (OSError, ValueError):
        return False


def _fault(error: ErrorDetails) -> str:
    """One fault of a plan in a line: key, reason, value."""
    path = [str(part) for part in error["loc"]]
    if path[0:1] and path[0] in _UNIONS:
        del path[1:2]  # pydantic's name for the member of the union, not a key
    key, kind, value = ".".join(path), error["type"], error["input"]
    message, context = error["msg"].removeprefix("Value error, "), error.get("ctx", {})
    if kind == "missing":
        return f"{key}: is required, and not given"
    if kind == "union_tag_invalid":
        key, value = f"{key}.{context['discriminator'].strip(chr(39))}", context["tag"]
        known = context["expected_tags"].replace("'", "")
        close = difflib.get_close_matches(value, known.split(", "), n=1)
        message = (f"did you mean {close[0]!r}? " if close else "") + f"known here: {known}"
    elif kind in ("model_type", "model_attributes_type"):
        message = "must be a section of its own keys"
    elif kind == "value_error" and isinstance(value, dict):
        return (
            f"{key}: {message}" if key else message
        )  # about the whole section: it says what it needs
    return f"{key}: {message} (got {_SHORT.repr(value)})"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200

_UNIONS = ("adapter", "partition", "algorithm")
"""Sections that come in kinds."""


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
