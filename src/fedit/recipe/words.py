"""From YAML and key=value words to a tree of plain values, with paths as they are meant."""

import glob
import os
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from fedit.core.errors import InputError


def read_tree(path: Path, what: str = "recipe", named: bool = True) -> dict[str, Any]:
    """The keys and values of a YAML file, `named` after it where it says no name. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{what} {path}: cannot be read ({error}); give the path of a YAML file"
        ) from None
    tree = _parse(text, f"{what} {path}")
    if named:
        tree.setdefault("name", _slug(path.stem))
    return tree


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


def override(tree: dict[str, Any], word: str) -> None:
    """Apply one word such as "federation.rounds=5" to the tree. Raises InputError."""
    key, value = read_word(word)
    change(tree, key, value, f"override {word!r}")


def read_word(word: str) -> tuple[str, Any]:
    """The key and the value of a KEY=VALUE word. Raises InputError."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise InputError(f"override {word!r}: write key=value, e.g. federation.rounds=5")
    return key, _yaml(value, f"override {word!r}")


def change(tree: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set a dotted key, making the sections above it where there are none. Raises InputError."""
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.get(parent)
        if isinstance(below, str):  # the one-word form of a section, e.g. algorithm: fedprox
            below = {_ONE_WORD.get(parent, "name"): below}
        elif below is not None and not isinstance(below, dict):
            raise InputError(f"{source}: {parent} holds {below!r}, which has no keys below it")
        tree[parent] = below = {} if below is None else dict(below)
        tree = below
    tree[last] = value


_ONE_WORD = {"adapter": "kind", "engine": "kind", "partition": "by"}

PATH_KEYS = (("data", "train"), ("data", "test"), ("model", "base"), ("model", "tokenizer"))


def anchor_paths(tree: dict[str, Any], folder: Path) -> None:
    """Take the tree's paths that exist relative to `folder`, and not to the working folder, from there."""
    for section, key in PATH_KEYS:
        part = tree.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        if (
            isinstance(part, dict)
            and isinstance(value, str)
            and value.strip() not in ("", "microworld")
        ):
            part[key] = anchored(value, folder)


def anchored(value: str, folder: Path) -> str:
    """The absolute path of what exists from the working folder or else from `folder`; other values as is."""
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
