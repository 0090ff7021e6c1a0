"""Tuning: every arm with every value of the grid, scored on rows that are never the test's."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedit.config import Study
from fedit.core.errors import InputError
from fedit.corpus import read_data
from fedit.evaluate.intervals import draws, mean, ratio
from fedit.recipe import grid
from fedit.studies.folder import StudyFolder
from fedit.studies.jobs import Job, Jobs, first_of, plan_jobs, shared_plan
from fedit.studies.personal import personal_part
from fedit.studies.study import OpenStudy, items_of, unfinished
from fedit.studies.summary import Table


class OpenTuning(OpenStudy):
    """A study's tuning, planned and checked; its runs lie in the study's folder under `tune/`."""

    def __init__(self, plan: Study, *, resume: bool = False):
        if plan.dev is None or not plan.tune:
            raise InputError(
                "tuning needs dev (changes that make the plan score on rows other than the test's, e.g. "
                "{data.test_split: dev}) and tune (a grid, e.g. {local.lr: [1e-3, 2e-3]})"
            )
        self.plan, self._seconds = plan, 0.0
        path = Path(plan.folder) / "tune"
        self.tried = [(changes, _plan_jobs(plan, path, changes)) for changes in grid(plan)]
        first = self.tried[0][1]
        if not first.jobs:
            raise InputError("arms: there is none to tune beside the base")
        _check_apart(plan, first)
        self.planned = Jobs(self._jobs(), first.alone, first.corpus, first.notes)
        self.folder = StudyFolder(path)
        try:
            if not resume and any(job.folder.exists() for job in self._jobs()):
                raise InputError(
                    f"output {self.folder.path}: holds a tuning already; continue it with --resume "
                    "(resume=True in Python), or choose another --output"
                )
            self.left = [job for _, planned in self.tried for job in unfinished(planned)]
        except BaseException:
            self.folder.close()
            raise

    def summarise(self) -> dict[str, Any]:
        """Write `tune.json` and return what it holds."""
        parts = [
            (changes, Table(p, items_of(p.jobs)), own_scores(self.plan, p.jobs))
            for changes, p in self.tried
        ]
        found = {
            "name": self.plan.name,
            "seeds": self.plan.tune_seeds,
            "items": len(parts[0][1].rows),
            "seconds": self._seconds,
            "arms": [
                tuned(self.plan, arm, parts)
                for arm, said in self.plan.arms.items()
                if said["kind"] != "base"
            ],
        }
        self.folder.write("tune.json", found)
        return found

    def _jobs(self) -> list[Job]:
        return [job for _, planned in self.tried for job in planned.jobs]


def _plan_jobs(study: Study, path: Path, changes: dict[str, Any]) -> Jobs:
    name = ",".join(f"{key}={value}" for key, value in changes.items())
    folder = path / "".join(c if c.isalnum() or c in "=,.-+_" else "_" for c in name)
    return plan_jobs(study, folder, dev=True, seeds=study.tune_seeds, tried=changes)


def own_scores(study: Study, jobs: Sequence[Job]) -> dict[str, Any]:
    """By arm what clients' own models score on clients' own rows, where the study asks for them."""
    found = personal_part(jobs, first_of(study.personal))
    return {one["arm"]: one["own_rows"]["own_model"] for one in found}


def tuned(
    study: Study, arm: str, parts: list[tuple[dict[str, Any], Table, dict[str, Any]]]
) -> dict[str, Any]:
    """An arm's score with every value, the best by `tune_by` first, and where that is an edge.

    Where clients' own models are scored, theirs are the scores to choose by: what a method leaves in the
    global model may be no model at all. A loss that is not finite is the worst.
    """
    candidates = [
        {"changes": changes, **_scores(table, arm)} | ({"own": own[arm]} if arm in own else {})
        for changes, table, own in parts
    ]

    def goodness(one: dict[str, Any]) -> tuple[float, ...]:
        told = one.get("own", one)
        loss = -math.inf if told["loss"]["mean"] is None else -told["loss"]["mean"]
        answers = told["em"]["mean"] or 0, told["f1"]["mean"] or 0
        return (loss, *answers) if study.tune_by == "loss" else (*answers, loss)

    best = max(candidates, key=goodness)
    edges = []
    for key, values in study.tune.items():
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numeric and len(values) > 1 and best["changes"][key] in (min(values), max(values)):
            edges.append(key)
    return {"arm": arm, "candidates": candidates, "best": best["changes"], "edge": edges}


def paste(study: Study, found: dict[str, Any]) -> list[str]:
    """The lines for `arms:` with the best values in them."""
    lines = []
    for part in found["arms"]:
        changes = {**study.arms[part["arm"]], **part["best"]}
        if changes["kind"] == part["arm"] or (
            changes["kind"] == "federated" and part["arm"] not in ("base", "local", "central")
        ):
            del changes["kind"]
        inside = ", ".join(f"{key}: {_yaml_word(value)}" for key, value in changes.items())
        lines.append(f"  {part['arm']}: {{{inside}}}")
    return lines


def _scores(table: Table, arm: str) -> dict[str, Any]:
    drawn = draws(len(table.seeds), len(table.rows))
    return {
        "em": asdict(mean(table.of(arm, "em"), drawn)),
        "f1": asdict(mean(table.of(arm, "f1"), drawn)),
        "loss": asdict(ratio(table.of(arm, "loss"), table.of(arm, "tokens"), drawn)),
    }


def _check_apart(study: Study, planned: Jobs) -> None:
    """Refuse to choose settings by the rows that will tell how good they are."""
    tested = {example.turns for example in read_data(shared_plan(study)).test}
    both = sum(example.turns in tested for example in planned.corpus.test)
    if both:
        raise InputError(
            f"dev: {both} of the {len(planned.corpus.test)} rows to tune on are rows of the test; let dev "
            "name other ones, e.g. {data.test: null, data.holdout: {size: 10, by: category}}"
        )


def _yaml_word(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml_word(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml_word, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
