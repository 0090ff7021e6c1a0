"""A run's folder as the report reads it: whole or not, whatever can be told is told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fedit.config import Plan
from fedit.core.errors import InputError
from fedit.recipe import load_plan
from fedit.report.personal import NAME, Personal
from fedit.report.summary import Part, Read, Scores, read


class Evaluation(Part):
    """A held-out loss, of pairs the share ranked rightly, and the same by group and by client."""

    loss: float | None = None
    accuracy: float | None = None
    by: dict[str, "Evaluation"] = Field(default_factory=dict)
    clients: dict[str, "Evaluation"] = Field(default_factory=dict)


class Record(Part):
    """One round of a journal, as far as a report needs it."""

    round: int
    loss: float | None = None
    tokens: float = 0.0
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    failures: list[dict[str, Any]] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict)
    memory_mib: float | None = None
    time: float | None = None
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class RunView:
    """One run: its plan, surroundings, journal and, where they were scored, answers and clients' models."""

    path: Path
    name: str
    text: str
    plan: Plan | None
    environment: dict[str, Any] = field(repr=False)
    journal: list[Record] = field(repr=False)
    scores: Scores | None = field(repr=False)
    notes: list[str]
    personal: Personal | None = field(default=None, repr=False)

    @property
    def planned(self) -> int | None:
        """Rounds the plan asks for."""
        return self.plan.federation.rounds if self.plan else None

    @property
    def unit(self) -> str:
        """What the loss is measured in."""
        pairs = self.plan is not None and self.plan.local.objective == "dpo"
        return "nats a pair" if pairs else "nats a token"

    @property
    def done(self) -> int:
        """Rounds finished."""
        return self.journal[-1].round if self.journal else 0

    def losses(self) -> list[tuple[int, float]]:
        """Held-out loss by round, where it was measured."""
        found = [(r.round, r.evaluation.loss) for r in self.journal if r.evaluation]
        return [(round, loss) for round, loss in found if loss is not None]

    def last(self) -> Evaluation | None:
        """The newest evaluation."""
        return next((r.evaluation for r in reversed(self.journal) if r.evaluation), None)


def is_run(path: Path) -> bool:
    """Whether a run was begun in this folder."""
    return (path / "plan.yaml").is_file()


def read_run(path: Path, *, scores: bool = True) -> RunView:
    """The run in a folder; what is damaged or unfinished is noted. Raises InputError if there is none."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give the --output of a run or of a study")
    if not is_run(path):
        raise InputError(
            f"{path}: holds no run (plan.yaml) and no study (summary.json); give the --output of one"
        )
    notes: list[str] = []
    text = (path / "plan.yaml").read_bytes().decode(errors="replace")
    plan: Plan | None = None
    try:
        plan = load_plan(path / "plan.yaml")
    except InputError:
        notes.append("plan.yaml is damaged, so what depends on the plan is left out")
    journal, lost = _journal(path / "journal.jsonl")
    if lost:
        lines = "line" if lost == 1 else "lines"
        notes.append(f"{lost} damaged {lines} of journal.jsonl left out")
    answers, own = None, None
    if scores:
        answers = _optional(Scores, path / "scores.json", "score the run again", notes)
        own = _optional(Personal, path / NAME, "run fedit evaluate --personal again", notes)
    view = RunView(path, path.name or str(path), text, plan, {}, journal, answers, notes, own)
    try:
        environment = json.loads((path / "environment.json").read_bytes())
        view = replace(view, environment=environment if isinstance(environment, dict) else {})
    except (OSError, ValueError):
        notes.append("environment.json is missing or damaged: versions and hashes are left out")
    if view.planned is not None and view.done < view.planned:
        notes.append(
            f"the run has not finished: {view.done} of {view.planned} rounds are shown "
            f"(go on with: fedit run --resume {path})"
        )
    return view


def _optional(kind: type[Read], path: Path, remedy: str, notes: list[str]) -> Read | None:
    """What a file that need not be there holds; None, and a note, where it is damaged."""
    try:
        return read(kind, path, remedy) if path.exists() else None
    except InputError as error:
        notes.append(f"{path.name} is left out: {error}")
        return None


def _journal(path: Path) -> tuple[list[Record], int]:
    """The records in order of their rounds, and how many lines could not be read."""
    found: dict[int, Record] = {}
    lost = 0
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        if line.strip():
            try:
                record = Record.model_validate(json.loads(line))
                found[record.round] = record
            except (ValueError, ValidationError, RecursionError):
                lost += 1
    return [found[round] for round in sorted(found)], lost


def named(runs: Sequence[RunView]) -> list[RunView]:
    """The runs under names that tell them apart: the folder's own, or its path where those are equal."""
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else replace(run, name=str(run.path)) for run in runs]
