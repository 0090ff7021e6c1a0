"""What a study found, as JSON values: means with their intervals by arm and by label, and pairs of arms."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np

from fedit.config import Study
from fedit.core.errors import InputError
from fedit.evaluate.intervals import Draws, Values, difference, draws, mean, ratio
from fedit.evaluate.items import Item
from fedit.evaluate.stored import Scores
from fedit.studies.details import clients_part, cost_part, spread_part, trained_samples
from fedit.studies.jobs import Job, Jobs
from fedit.studies.personal import personal_part


class Table:
    """Scores of every arm as arrays, seeds × items; runs of one seed (clients alone) are averaged."""

    def __init__(self, planned: Jobs, scores: Mapping[str, Scores]):
        self.jobs = planned.jobs
        self.seeds = sorted({job.seed for job in planned.jobs if job.seed is not None}) or [0]
        first = scores[str(planned.jobs[0].place)].items
        self.rows: Sequence[Item] = first
        self._items = {place: found.items for place, found in scores.items()}
        for place, items in self._items.items():
            if [item.where for item in items] != [item.where for item in first]:
                raise InputError(
                    f"{place}/scores.json: holds other rows than {planned.jobs[0].place}; delete it, then "
                    "resume"
                )

    def of(self, arm: str, measure: str) -> Values:
        """One number an item: "em", "f1", "loss" (a sum of nats, NaN where not finite)."""
        return np.array([self._seed(arm, seed, measure) for seed in self.seeds])

    def one(self, job: Job, measure: str) -> Values:
        """The numbers of a single run."""
        return np.array([_measures(item)[measure] for item in self._items[str(job.place)]])

    def runs(self, arm: str) -> list[Job]:
        """The runs of an arm."""
        return [job for job in self.jobs if job.arm == arm]

    def _seed(self, arm: str, seed: int, measure: str) -> Values:
        mine = [self.one(job, measure) for job in self.runs(arm) if job.seed in (seed, None)]
        averaged: Values = np.mean(mine, axis=0)
        return averaged


def summarise(
    study: Study, planned: Jobs, scores: Mapping[str, Scores], seconds: float
) -> dict[str, Any]:
    """Everything `summary.json` holds; intervals are 95 %, by bootstrap over seeds and items."""
    table = Table(planned, scores)
    drawn = draws(len(table.seeds), len(table.rows))
    arms = list(dict.fromkeys(job.arm for job in planned.jobs))
    pairs = [(one, other) for one in arms for other in arms if one != other]
    return {
        "name": study.name,
        "seeds": table.seeds,
        "items": len(table.rows),
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "seconds": seconds,
        "arms": [arm_part(table, arm) for arm in arms],
        "spread": spread_part(table, arms),
        "differences": [
            {"arm": one, "over": other}
            | {
                m: asdict(difference(table.of(one, m), table.of(other, m), drawn))
                for m in ("em", "f1")
            }
            for one, other in pairs
        ],
        "ratios": [
            {"arm": one, "over": other}
            | {m: asdict(ratio(table.of(one, m), table.of(other, m), drawn)) for m in ("em", "f1")}
            for one, other in pairs
        ],
        "clients": clients_part(table, planned.alone, study.plan.evaluation.by),
        "personal": personal_part(planned.jobs, study.personal),
        "cost": cost_part(planned.jobs, scores),
    }


def arm_part(table: Table, arm: str) -> dict[str, Any]:
    """An arm's scores over all items and by label."""
    runs = table.runs(arm)
    first = runs[0]
    return {
        "name": arm,
        "kind": first.kind,
        "runs": len(runs),
        "lr": None if first.kind == "base" else first.plan.local.lr,
        "samples": round(float(np.mean([trained_samples(job) for job in runs]))),
        "metrics": metrics_part(table, arm, first.plan.evaluation.by),
    }


def metrics_part(table: Table, arm: str, by: str) -> dict[str, Any]:
    """EM, F1 and loss a token with their intervals: of all items, and of those with each label."""
    measures = {m: table.of(arm, m) for m in ("em", "f1", "loss", "tokens")}
    everything = np.ones(len(table.rows), dtype=bool)
    groups = {"all": everything}
    for label in dict.fromkeys((by, "language")):
        values = [row.labels.get(label) for row in table.rows]
        for value in sorted({value for value in values if value is not None}):
            groups[f"{label}/{value}"] = np.array([one == value for one in values])
    found = {}
    for group, chosen in groups.items():
        drawn: Draws = draws(len(table.seeds), int(chosen.sum()))
        part = {measure: values[:, chosen] for measure, values in measures.items()}
        found[group] = {
            "em": asdict(mean(part["em"], drawn)),
            "f1": asdict(mean(part["f1"], drawn)),
            "loss": asdict(ratio(part["loss"], part["tokens"], drawn)),
        }
    return found


def _measures(item: Item) -> dict[str, float]:
    return {
        "em": float(item.correct),
        "f1": item.f1,
        "loss": np.nan if item.loss is None else item.loss,
        "tokens": float(item.tokens),
    }
