"""From a tree of plain values to a checked model, and back; every refusal names key, value and reason."""

import difflib
import io
import reprlib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML

from fedit.config import Section
from fedit.core.errors import InputError

Checked = TypeVar("Checked", bound=BaseModel)


def check(kind: type[Checked], tree: dict[str, Any], source: str) -> Checked:
    """The tree as a model of that kind. Raises InputError, which lists every fault found."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = map(_fault, error.errors())
        raise InputError("\n".join(f"{source}: {fault}" for fault in faults)) from None


def dump_plan(plan: Section) -> str:
    """The whole plan as YAML, defaults included; reading it back gives an equal plan."""
    out = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(plan.model_dump(mode="json"), out)
    return out.getvalue()


def differences(old: Section, new: Section) -> list[str]:
    """Dotted keys in which two plans differ, as "key: old → new"."""
    left, right = _flat(old.model_dump()), _flat(new.model_dump())
    keys = sorted(left.keys() | right.keys())
    return [
        f"{key}: {left.get(key)!r} → {right.get(key)!r}"
        for key in keys
        if repr(left.get(key)) != repr(right.get(key))  # 1 is one client, 1.0 is all
    ]


def _fault(error: ErrorDetails) -> str:
    """One fault of a plan in a line: key, reason, value."""
    path = [str(part) for part in error["loc"]]
    section = int(path[:1] == ["plan"])  # a study holds a plan
    if path[section : section + 1] and path[section] in _UNIONS:
        # pydantic's name for the member of the union, not a key
        del path[section + 1 : section + 2]
        if path[section + 1 : section + 2] == ["server"]:  # a union in that of algorithms
            del path[section + 2 : section + 3]
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
    remedy = "".join(
        f"; {_REMEDIES[bound]} {number:g}"
        for bound, number in context.items()
        if bound in _REMEDIES
    )
    return f"{key}: {message}{remedy} (got {_SHORT.repr(value)})"


_REMEDIES = {
    "ge": "set it to at least",
    "gt": "set it above",
    "le": "set it to at most",
    "lt": "set it below",
    "min_length": "give at least",
}
"""By pydantic's word for a bound."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200

_UNIONS = ("adapter", "partition", "algorithm", "engine")
"""Sections that come in kinds."""


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
