"""The finer parts of a summary: best and worst clients alone, clients' own labels, and what it all cost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedit.evaluate.intervals import Values
from fedit.evaluate.stored import Scores
from fedit.report.folder import RunFolder
from fedit.studies.jobs import Alone, Job

if TYPE_CHECKING:
    from fedit.studies.summary import Table

_BOTH = ("em", "f1")


def spread_part(table: "Table", arms: Sequence[str]) -> dict[str, Any]:
    """For arms with several runs a seed: the best and the worst of them."""
    found = {}
    for arm in arms:
        runs = [job for job in table.runs(arm) if job.client]
        if runs:
            found[arm] = {measure: _extremes(table, runs, measure) for measure in _BOTH}
    return found


def _extremes(table: "Table", runs: Sequence[Job], measure: str) -> dict[str, Any]:
    values: list[dict[str, Any]] = [
        {"seed": job.seed, "client": job.client, "value": float(table.one(job, measure).mean())}
        for job in runs
    ]
    return {
        "best": max(values, key=lambda run: run["value"]),
        "worst": min(values, key=lambda run: run["value"]),
    }


def clients_part(table: "Table", alone: Sequence[Alone], by: str) -> list[dict[str, Any]]:
    """For each client that trained alone: every arm on its own labels and on the others'."""
    labels = [row.labels.get(by) for row in table.rows]
    found = []
    for client in alone:
        own = np.array([label in client.own for label in labels])
        arms = {
            job.arm: {
                part: {measure: _mean(table.one(job, measure)[chosen]) for measure in _BOTH}
                for part, chosen in (("own", own), ("others", ~own))
            }
            for job in table.jobs
            if job.seed in (client.seed, None) and job.client in (client.client, None)
        }
        found.append(
            {
                "seed": client.seed,
                "client": client.client,
                "own": client.own,
                "rows": client.rows,
                "arms": arms,
            }
        )
    return found


def _mean(values: Values) -> float | None:
    return float(values.mean()) if len(values) else None


def cost_part(jobs: Sequence[Job], scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """Seconds, tokens and bytes of every run, from its journal."""
    found = []
    for job in jobs:
        records = journal(job)
        seconds = [record.get("seconds", {}) for record in records]
        found.append(
            {
                "arm": job.arm,
                "seed": job.seed,
                "client": job.client,
                "train_seconds": sum(part.get("train", 0.0) for part in seconds),
                "evaluate_seconds": sum(part.get("evaluate", 0.0) for part in seconds)
                + scores[str(job.place)].seconds,
                **{
                    key: round(sum(record.get(key, 0) for record in records))
                    for key in ("tokens", "bytes_up", "bytes_down")
                },
            }
        )
    return found


def trained_samples(job: Job) -> int:
    """Samples a run was trained on, as its clients counted them."""
    counts = [m["samples"] for record in journal(job) for m in record.get("clients", {}).values()]
    return int(sum(counts))


def journal(job: Job) -> list[dict[str, Any]]:
    """The rounds of a run; none for the base."""
    return [] if job.kind == "base" else RunFolder(job.folder, read_only=True).journal()
