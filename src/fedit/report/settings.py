"""How it was done: plans, versions and hashes, and in what the plans of several runs differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedit.report.blocks import Block, Cell, Code, Section, Table
from fedit.report.runs import RunView
from fedit.report.words import line, visible


def section(texts: Mapping[str, str], runs: Sequence[RunView]) -> Section | None:
    """Every plan as YAML, and versions and hashes of the first run that knows them."""
    blocks: list[Block] = [
        Code(name, visible(text, 200_000)) for name, text in texts.items() if text
    ]
    known = next((run.environment for run in runs if run.environment), {})
    if rows := facts(known):
        blocks.append(Table("Versions and hashes (SHA-256)", ["", ""], rows, frozenset({0, 1})))
    if not blocks:
        return None
    return Section(
        "settings",
        "How it was done",
        "The plan repeats the run: save it as a file and give it to fedit.",
        blocks,
    )


def facts(environment: Mapping[str, Any]) -> list[list[Cell]]:
    """Versions, parameters and hashes as rows."""
    found: dict[str, str] = {}
    for name, version in _mapping(environment.get("versions")).items():
        found[str(name)] = str(version)
    parameters = _mapping(environment.get("parameters"))
    if {"trained", "all"} <= parameters.keys():
        trained, whole = parameters["trained"], parameters["all"]
        if isinstance(trained, int) and isinstance(whole, int) and whole:
            found["parameters"] = (
                f"{trained:,} trained of {whole:,} ({100 * trained / whole:.2f} %)"
            )
    if "base" in environment:
        found["base"] = str(environment["base"])
    for name, digest in _mapping(environment.get("data")).items():
        found[f"data {name}"] = str(digest)
    return [[Cell(line(name, 120)), Cell(line(value, 200))] for name, value in found.items()]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def differing(runs: Sequence[RunView]) -> Table | None:
    """The keys in which the runs' plans are not alike, a column for each run."""
    plans = [flat(run.plan.model_dump(mode="json")) for run in runs if run.plan]
    if len(plans) < 2 or len(plans) < len(runs):
        return None
    keys = sorted(set().union(*plans) - {"output", "name"})
    rows = [
        [Cell(key), *(Cell(line(plan.get(key, "–"))) for plan in plans)]
        for key in keys
        if len({plan.get(key) for plan in plans}) > 1
    ]
    heads = ["Key", *(line(run.name) for run in runs)]
    if not rows:
        return None
    return Table("What differs between the plans", heads, rows, frozenset(range(len(heads))))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested plan as dotted keys with JSON values."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value, ensure_ascii=False)
    return found
