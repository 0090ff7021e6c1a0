"""Scores every client with a model of its own, beside the global one: `fedit evaluate RUN --personal`."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fedit.build import Job, build
from fedit.config import InProcess, Plan
from fedit.core.client import own_model, tuned_model
from fedit.core.errors import FeditError, InputError
from fedit.core.examples import Example
from fedit.core.gate import not_finite
from fedit.core.lora import rank_of
from fedit.core.messages import ADAPTER, Order, State
from fedit.core.rounds import make_order
from fedit.core.seats import as_it_is
from fedit.core.tree import Tree, same
from fedit.corpus import read_data
from fedit.engines.homes import Homes
from fedit.evaluate.items import Item
from fedit.files import write_atomically
from fedit.records import MEASURES, Record, fairness_record
from fedit.report.folder import RunFolder
from fedit.runner import GIVEN, check_homes
from fedit.score import Loaded, check_base, check_data, saved_run, score_items, summary
from fedit.selection.samplers import Uniform

NAME = "personal.json"
"""The file in a run's folder."""


def file_of(tune: int | None) -> str:
    """The file in which a study keeps what clients' models score after so many steps."""
    return f"personal-{tune}.json" if tune else NAME


ROWS = ("own_rows", "test_rows")
MODELS = ("own_model", "global_model")


def personal(
    path: Path, *, limit: int | None = None, tune: int | None = None, name: str = NAME
) -> Record:
    """Every client's own model and the global one, on the client's own held-out rows and on the test rows.

    A client's own model is what the run's method says it is after the last checkpoint; with `tune` it is
    what the client would begin a round with, trained on its rows for so many steps at the plan's lr.
    `limit` bounds the rows of each client and of the test. The result is JSON values, written to the run's
    file `name` too; nothing else in the folder changes.

    `clients` by id, `mean` over them (each client counting once) and `fairness` over them hold, for
    `own_rows` and `test_rows`, what `own_model` and `global_model` score; None where there are no such rows.
    `personal` says whether any client's model differs from the global one. Raises InputError, and
    FeditError where tuning diverged.
    """
    saved = saved_run(path)
    if not saved.plan.partition.validation:
        raise InputError(
            f"run folder {path}: partition.validation is 0, so clients have no rows of their own to be "
            "scored on; begin a run with partition.validation=0.1"
        )
    if saved.known.get("algorithm", "").endswith(GIVEN):
        raise InputError(
            f"run folder {path}: algorithm {saved.known['algorithm']} is not in its plan, so clients' own "
            "models are not known here; give it an entry point and name it in the plan "
            "(docs/add-an-algorithm.md)"
        )
    check_homes(RunFolder(path, read_only=True), saved.state.round)
    with TemporaryDirectory() as folder, _threads(saved.plan.threads):
        job = build(_fitting(saved.plan, tune), Path(folder))
        with closing(job.engine):
            check_data(saved.plan, saved.known["data"], job.hashes)
            check_base(job.base, job.adapted, saved.known, path)
            scored, notes = _score(job, saved.state, Homes(path / "homes"), limit, tune)
    some = any(not one["is_global"] for one in scored.values())
    if not some:
        notes.insert(
            0,
            f"every client's own model is the global one: after round {saved.state.round} "
            f"{job.algorithm.name} has no other for them; --tune STEPS fits it to each client's rows first",
        )
    result = {
        "round": saved.state.round,
        "algorithm": job.algorithm.name,
        "tune": tune,
        "limit": limit,
        "personal": some,
        "clients": scored,
        "mean": _over(scored, _mean),
        "fairness": _over(scored, fairness_record),
        "notes": notes,
    }
    write_atomically(path / name, json.dumps(result, ensure_ascii=False).encode())
    return result


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """As many threads as the plan has, and afterwards as before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)


def _fitting(plan: Plan, tune: int | None) -> Plan:
    """The plan for training in this process after its rounds, beyond which no schedule of the lr reaches."""
    changes: dict[str, Any] = {"schedule": "constant", "warmup": 0.0}
    if tune is not None:
        changes |= {"steps": tune, "epochs": None}
    local = plan.local.model_copy(update=changes)
    return plan.model_copy(update={"engine": InProcess(), "local": local})


@dataclass(frozen=True)
class _Rows:
    """What is scored: each client's held-out rows, and the test's."""

    own: dict[str, list[Example]]
    test: list[Example]


def _score(
    job: Job, state: State, homes: Homes, limit: int | None, tune: int | None
) -> tuple[dict[str, Record], list[str]]:
    """Every client's record, and notes on rows left out."""
    rows = _rows(job, limit)
    hands = Loaded(
        job.plan, job.base, job.adapted, job.forward, job.encoder, state, job.hashes
    )  # what scoring needs
    job.adapted.load(state.public)
    usual = _by_client(hands, rows.own)
    tested, notes = score_items(hands, rows.test) if rows.test else ([], [])
    order = _order(job, state)
    found = {}
    for client, examples in rows.own.items():
        model = _model(job, order, client, homes, state, tune)
        is_global = same(model, state.adapter)
        own, test = usual[client], tested
        if not is_global:
            job.adapted.load({**state.public, ADAPTER: model})
            own = _by_client(hands, {client: examples})[client]
            test = score_items(hands, rows.test)[0] if rows.test else []
        found[client] = {
            "is_global": is_global,
            "own_rows": _pair(own, usual[client]),
            "test_rows": _pair(test, tested),
        }
    if none := [client for client, examples in rows.own.items() if not examples]:
        notes.append(f"{len(none)} clients have too few rows to hold one out, first {none[0]}")
    return found, notes


def _rows(job: Job, limit: int | None) -> _Rows:
    """The rows as text; of the data a job keeps tokens only. Raises InputError where none is held out."""
    corpus = read_data(job.plan)
    own: dict[str, list[Example]] = {client.id: [] for client in job.engine.clients()}
    for client, place in zip(job.validation.groups, job.validation.places, strict=True):
        own[client].append(corpus.train[place])
    if not any(own.values()):
        raise InputError(
            f"partition.validation {job.plan.partition.validation}: holds out no row of any client; "
            "begin a run with a larger share or fewer clients"
        )
    return _Rows(
        {client: examples[:limit] for client, examples in own.items()}, corpus.test[:limit]
    )


def _order(job: Job, state: State) -> Order:
    """What every client would receive now."""
    everyone = replace(job.policy, select=Uniform(1.0))
    whole = replace(job.algorithm, down=as_it_is)  # the result is not sent in a short form
    return make_order(state, 0, whole, everyone, job.engine.clients(), job.plan.seed)


def _model(
    job: Job, order: Order, client: str, homes: Homes, state: State, tune: int | None
) -> Tree:
    home = homes.load(client, state.round)
    if tune is None:
        model = own_model(order, client, home, job.trainer, job.algorithm)
    else:
        rank = rank_of(state.adapter)
        model = tuned_model(order, client, home, job.trainer, job.algorithm, rank)
    if name := not_finite(model):
        raise FeditError(
            f"{client}: training its own model diverged: {name} holds NaN or infinity; give --tune fewer "
            "steps, or begin anew with a lower local.lr"
        )
    return model


def _by_client(hands: Loaded, own: Mapping[str, Sequence[Example]]) -> dict[str, list[Item]]:
    """The present model's items on clients' rows, all of which leave an answer within max_length."""
    examples = [example for rows in own.values() for example in rows]
    items = iter(score_items(hands, examples)[0] if examples else [])
    return {client: [next(items) for _ in rows] for client, rows in own.items()}


def _pair(own: Sequence[Item], usual: Sequence[Item]) -> Record | None:
    if not own:
        return None
    return dict(zip(MODELS, (summary(own), summary(usual)), strict=True))


def _over(
    scored: Mapping[str, Record], measured: Callable[[Mapping[str, Record]], Record]
) -> Record:
    """What `measured` makes of the scores by client, for each kind of rows and each model."""
    found: Record = {}
    for rows in ROWS:
        known = {client: one[rows] for client, one in scored.items() if one[rows]}
        by_model = {m: {client: pair[m] for client, pair in known.items()} for m in MODELS}
        found[rows] = {m: measured(own) for m, own in by_model.items()} if known else None
    return found


def _mean(scored: Mapping[str, Record]) -> Record:
    """The mean of each measure over clients; None where one of them has no finite value."""
    found: Record = {}
    for measure in MEASURES:
        values = [one[measure] for one in scored.values()]
        whole = None not in values
        found[measure] = math.fsum(values) / len(values) if whole else None
    return found
