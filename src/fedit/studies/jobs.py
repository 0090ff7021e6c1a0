"""The runs a study is made of: each with its plan, its folder and the samples it will see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

from fedit.config import Personal, Plan, Study
from fedit.config.algorithm import External
from fedit.core.errors import InputError
from fedit.core.seeds import generator
from fedit.corpus import Corpus, divide, read_data
from fedit.data.partition import Parts
from fedit.evaluate.items import check_rules
from fedit.recipe import arm_plan, changed
from fedit.studies.budget import expected_samples, samples_in, steps_for


@dataclass(frozen=True)
class Job:
    """One run of a study: `seed` is None for the base, `client` names the one that trains alone."""

    place: PurePath
    arm: str
    kind: str
    plan: Plan = field(repr=False)
    samples: int
    seed: int | None = None
    client: str | None = None
    personal: Personal | None = None

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return Path(self.plan.folder)


@dataclass(frozen=True)
class Alone:
    """A client that also trains alone: its rows, and which labels it has among them."""

    seed: int
    client: str
    rows: int
    own: list[str]


@dataclass(frozen=True)
class Jobs:
    """All runs of a study in the order of its table, the clients that train alone, and the data."""

    jobs: list[Job]
    alone: list[Alone]
    corpus: Corpus
    notes: list[str]


def plan_jobs(
    study: Study,
    folder: Path,
    *,
    dev: bool = False,
    seeds: Sequence[int] | None = None,
    tried: Mapping[str, Any] | None = None,
) -> Jobs:
    """Read the data, share it out for each seed and plan every run. Raises InputError.

    All arms see as many samples: what the federation of `study.plan` sees on average in a round is the
    budget of a client alone and of all rows together.
    """
    plan = shared_plan(study, dev=dev)
    corpus = read_data(plan)
    _check(study, plan, corpus)
    personal = first_of(study.personal) if dev else study.personal
    some_alone = any(said["kind"] == "local" for said in study.arms.values())
    jobs, alone, notes = list[Job](), list[Alone](), list[str](corpus.notes)
    for arm, said in study.arms.items():
        if said["kind"] == "base" and not dev:
            place = PurePath("base")
            output = {"output": str(folder / place)}
            jobs.append(Job(place, arm, "base", changed(plan, output, "study"), 0))
    for seed in study.seeds if seeds is None else seeds:
        seeded = plan.model_copy(update={"seed": seed})
        parts = divide(seeded, corpus.train)
        chosen = choose(list(parts.rows), study.clients, seed) if some_alone else []
        alone += [_alone(seeded, corpus, parts, seed, client) for client in chosen]
        for arm, said in study.arms.items():
            if said["kind"] == "base":
                continue
            own = one_holdout(arm_plan(study, arm, dev=dev, tried=tried))
            own = own.model_copy(update={"seed": seed})
            made = _arm_jobs(arm, said["kind"], own, parts, chosen, corpus)
            jobs += [_placed(job, folder, personal) for job in made]
    return Jobs(jobs, alone, corpus, notes)


def first_of(how: Personal | None) -> Personal | None:
    """How clients' own models are scored to choose settings: with the first number of steps alone."""
    return how and how.model_copy(update={"tune": how.tune[:1]})


def choose(clients: Sequence[str], count: Any, seed: int) -> list[str]:
    """The clients that train alone: one drawn from each of `count` equal stretches of the population."""
    if count == "all":
        return list(clients)
    if count > len(clients):
        raise InputError(
            f"clients: {count} is more than the {len(clients)} clients there are; lower it, or say all"
        )
    rng, total = generator(seed, "alone"), len(clients)
    ends = [total * i // count for i in range(count + 1)]
    return [clients[int(rng.integers(a, b))] for a, b in pairwise(ends)]


def one_holdout(plan: Plan) -> Plan:
    """The plan with held-out rows that are the same for every seed."""
    if plan.data.holdout is None or plan.data.holdout.seed is not None:
        return plan
    return changed(plan, {"data.holdout.seed": plan.seed}, "study")


def shared_plan(study: Study, *, dev: bool = False) -> Plan:
    """The plan that all arms have in common: its data and its budget of samples."""
    bare = study.model_copy(update={"arms": {"plan": {"kind": "federated"}}})
    return one_holdout(arm_plan(bare, "plan", dev=dev))


def _check(study: Study, plan: Plan, corpus: Corpus) -> None:
    if not corpus.test:
        raise InputError(
            "plan.data: has no held-out rows to score on; give data.test (a source) or data.holdout"
        )
    central = [arm for arm, said in study.arms.items() if said["kind"] == "central"]
    if plan.partition.validation and central:
        raise InputError(
            f"plan.partition.validation {plan.partition.validation}: rows that each client keeps for itself "
            f"would be missing from all rows together; take it away, or the arm {central[0]}"
        )
    if study.personal and not plan.partition.validation:
        raise InputError(
            "personal: plan.partition.validation is 0, so clients have no rows of their own to be scored "
            "on; set it, e.g. to 0.1"
        )
    if plan.federation.only:
        raise InputError("plan.federation.only: a study sets it itself; take it away")
    check_rules(corpus.test)


def _alone(plan: Plan, corpus: Corpus, parts: Parts, seed: int, client: str) -> Alone:
    rows = parts.rows[client]
    found = {corpus.train[row].labels.get(plan.evaluation.by) for row in rows}
    return Alone(seed, client, len(rows), sorted(label for label in found if label is not None))


def _arm_jobs(
    arm: str, kind: str, plan: Plan, parts: Parts, chosen: Sequence[str], corpus: Corpus
) -> list[Job]:
    """The runs of one arm at one seed, not yet placed."""
    place, rounds, batch = (
        PurePath(f"seed-{plan.seed}") / arm,
        plan.federation.rounds,
        plan.local.batch,
    )
    if kind == "federated":
        if isinstance(plan.algorithm, External):
            from fedit.build.algorithms import entry_of  # loads torch

            entry_of(plan.algorithm)  # asked before other arms train for hours
        own = divide(plan, corpus.train)
        sizes = [len(rows) for rows in own.rows.values()]
        samples = round(expected_samples(plan, sizes) * rounds)
        return [Job(place, arm, kind, plan, samples, plan.seed)]
    if parts.dropped and kind == "central":
        raise InputError(
            f"plan.partition.small: {len(parts.dropped)} clients are left out, whose rows would be among "
            f"all rows together; take {arm} away, or lower partition.minimum"
        )
    budget = expected_samples(plan, [len(rows) for rows in parts.rows.values()])
    jobs = []
    for client in chosen if kind == "local" else [None]:
        rows = len(corpus.train) if client is None else len(parts.rows[client])
        steps = steps_for(budget, rows, batch)
        jobs.append(
            Job(
                place / client if client else place,
                arm,
                kind,
                _by_itself(plan, steps, client),
                samples_in(steps, rows, batch) * rounds,
                plan.seed,
                client,
            )
        )
    return jobs


def _by_itself(plan: Plan, steps: int, client: str | None) -> Plan:
    """The plan with one client, which has all rows unless it is named, in as many rounds."""
    alone = {"rounds": plan.federation.rounds, "cohort": 1, "minimum": 1}
    changes: dict[str, Any] = {
        "federation": alone if client is None else {**alone, "only": [client]},
        "algorithm": "fedavg",
        "local.steps": steps,
        "local.keep_optimizer": True,
    }
    if client is None:
        changes["partition"] = {"by": "iid", "clients": 1}
    return changed(plan, changes, "study")


def _placed(job: Job, folder: Path, personal: Personal | None) -> Job:
    plan = job.plan.model_copy(update={"output": str(folder / job.place)})
    own = personal if job.kind == "federated" else None
    return replace(job, plan=plan, personal=own)
