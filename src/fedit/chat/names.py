"""Which run a word means: a folder, a study's federated arm, or a sibling of the same seed."""

import re
from pathlib import Path

from fedit.core.errors import InputError
from fedit.data.nearest import nearest
from fedit.recipe import load_study

BASE = "base"
"""The word for the base without any adapter."""


def run_of(path: Path) -> Path:
    """The run folder that `path` is, or of a study the federated arm of its first seed."""
    if (path / "plan.yaml").exists():
        return path
    if not (path / "study.yaml").exists():
        why = "holds neither plan.yaml nor study.yaml" if path.is_dir() else "is no folder"
        raise InputError(f"chat {path}: {why}; give the folder of a run or of a study")
    study = load_study(path / "study.yaml")
    arms = [arm for arm, said in study.arms.items() if said["kind"] == "federated"]
    if not arms:
        raise InputError(
            f"chat {path}: the study has no federated arm; give one of its run folders"
        )
    run = path / f"seed-{study.seeds[0]}" / arms[0]
    if not (run / "plan.yaml").exists():
        raise InputError(
            f"chat {path}: {run} has not been run yet; go on with: fedit study --resume, or give "
            "another run folder of the study"
        )
    return run


def label(run: Path) -> str:
    """What a run is called: its place in its study, such as local:client-03, else its folder."""
    seed = _seed(run)
    return ":".join(run.absolute().relative_to(seed).parts) if seed else run.absolute().name


def find(run: Path, word: str) -> tuple[str, Path | None]:
    """The label and folder that `word` names beside `run`; no folder for the bare base.

    `central` or `fedprox` is another arm of the same seed, `local:client-03` or `local:3` one client's
    run, anything else a path. Raises InputError listing what there is.
    """
    if word == BASE:
        return BASE, None
    seed = _seed(run)
    siblings = _siblings(seed) if seed else {}
    arm, colon, client = word.partition(":")
    if colon and client.isdecimal():
        same = [
            name for name in siblings if name.startswith(f"{arm}:") and _number(name) == int(client)
        ]
        word = same[0] if len(same) == 1 else word
    if word in siblings:
        return word, siblings[word]
    if (path := Path(word)).is_dir():
        path = run_of(path)
        inside = seed is not None and _seed(path) == seed
        return (label(path) if inside else str(path)), path
    there = ", ".join([BASE, *siblings])
    hint = nearest(word, [BASE, *siblings])
    place = f"in {seed} there is" if seed else f"{run} is not in a study, so there is"
    raise InputError(
        f"--compare {word}: neither a model beside {run} nor a folder{hint}; {place} {there}; "
        "or give the folder of another run"
    )


def _seed(run: Path) -> Path | None:
    """The folder of the study's seed that a run lies in."""
    above = run.absolute().parents
    return next((p for p in above[:2] if re.fullmatch(r"seed-\d+", p.name)), None)


def _siblings(seed: Path) -> dict[str, Path]:
    found = sorted([*seed.glob("*/plan.yaml"), *seed.glob("*/*/plan.yaml")])
    return {label(path.parent): path.parent for path in found}


def _number(name: str) -> int | None:
    """The number that a client's id ends with: 3 of client-03."""
    digits = re.search(r"\d+$", name)
    return int(digits[0]) if digits else None
