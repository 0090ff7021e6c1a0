"""What clients' own models scored in a study: means over clients with intervals, and how even they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fedit.config import Personal
from fedit.core.errors import InputError
from fedit.evaluate.intervals import Values, difference, draws, mean
from fedit.personal import MODELS, ROWS, file_of
from fedit.records import Record, fairness_record
from fedit.studies.jobs import Job

_MEASURES = {"em": "exact_match", "f1": "token_f1", "loss": "loss"}


def personal_part(jobs: Sequence[Job], how: Personal | None) -> list[dict[str, Any]]:
    """For each federated arm and number of steps: own and global models' scores, each client counting once.

    Intervals are over the clients of all seeds; `gain` is an own model's score less that of the first arm's
    global model on the same rows, empty where clients are others there. Raises InputError for a damaged file.
    """
    if how is None:
        return []
    arms = list(dict.fromkeys(job.arm for job in jobs if job.personal))
    told = {(arm, steps): _clients(jobs, arm, steps) for arm in arms for steps in how.tune}
    dealt = {arm: [job.plan.partition for job in jobs if job.arm == arm] for arm in arms}
    return [
        {
            "arm": arm,
            "tune": steps,
            **_scores(found, told[arms[0], how.tune[0]] if dealt[arm] == dealt[arms[0]] else {}),
        }
        for (arm, steps), found in told.items()
    ]


def _clients(jobs: Sequence[Job], arm: str, steps: int) -> dict[str, Record]:
    """Every client of every seed."""
    return {
        f"seed {job.seed}, {client}": scored
        for job in jobs
        if job.arm == arm
        for client, scored in _read(job, steps).items()
    }


def _scores(clients: Mapping[str, Record], usual: Mapping[str, Record]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rows in ROWS:
        known = {client: one[rows] for client, one in clients.items() if one[rows]}
        first = {client: one[rows] for client, one in usual.items() if one[rows]}
        if known:
            found[rows] = {"clients": len(known), **{m: _model(known, m) for m in MODELS}}
            found[rows]["gain"] = {
                short: _gain(known, first, long)
                for short, long in _MEASURES.items()
                if _counts(known) == _counts(first)
            }
    return found


def _counts(known: Mapping[str, Record]) -> dict[str, int]:
    return {client: pair["own_model"]["rows"] for client, pair in known.items()}


def _read(job: Job, steps: int) -> dict[str, Record]:
    path = job.folder / file_of(steps)
    try:
        clients: dict[str, Record] = json.loads(path.read_bytes())["clients"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {error}); delete it, then resume"
        ) from None
    return clients


def _model(known: Mapping[str, Record], model: str) -> dict[str, Any]:
    drawn = draws(1, len(known))
    scored = {
        short: asdict(mean(_values(known, model, long), drawn)) for short, long in _MEASURES.items()
    }
    even = fairness_record({client: pair[model] for client, pair in known.items()})
    return scored | {"fairness": even}


def _gain(known: Mapping[str, Record], first: Mapping[str, Record], measure: str) -> dict[str, Any]:
    own, usual = _values(known, MODELS[0], measure), _values(first, MODELS[1], measure)
    return asdict(difference(own, usual, draws(1, len(known))))


def _values(known: Mapping[str, Record], model: str, measure: str) -> Values:
    return np.array([[pair[model][measure] for pair in known.values()]], dtype=np.float64)
