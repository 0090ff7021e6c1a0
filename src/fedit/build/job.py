"""A run's parts, loaded and checked."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedit.build.algorithms import make_algorithm
from fedit.build.compression import with_compression
from fedit.build.hosting import (
    PRELOAD,
    Hosting,
    lend_to_workers,
    make_engine,
    on_workers,
    together_note,
)
from fedit.build.model import forward_of, make_adapter, make_base
from fedit.build.rows import Reading, dealt
from fedit.build.words import make_policy, weighing_note
from fedit.config import Plan
from fedit.core.messages import Client
from fedit.core.population import Engine
from fedit.core.rounds import Policy
from fedit.core.seats import Algorithm
from fedit.corpus import (
    Held,
    cut_notes,
    division_notes,
    drawn_labels,
    held_rows,
    odds_of,
    share_out,
)
from fedit.data.partition import Parts
from fedit.engines.cluster import need_ray
from fedit.engines.processes import warm_up
from fedit.report.folder import TOKENS
from fedit.train.adapters import Adapted
from fedit.train.forward import Forward
from fedit.train.kept import encoded_in
from fedit.train.model import Base
from fedit.train.prompts import Encoder
from fedit.train.trainer import LocalTrainer


@dataclass(frozen=True)
class Job:
    """Everything a run needs, loaded and checked; of the data, tokens and the hash of each file."""

    plan: Plan
    base: Base
    adapted: Adapted
    forward: Forward
    encoder: Encoder
    hashes: dict[str, str]
    parts: Parts
    algorithm: Algorithm[Any]
    policy: Policy
    engine: Engine
    trainer: LocalTrainer
    test: Held
    validation: Held
    notes: list[str]


def build(
    plan: Plan,
    folder: Path,
    lent: Base | None = None,
    *,
    blank: bool = False,
    algorithm: Algorithm[Any] | None = None,
    reading: Reading = dealt,
) -> Job:
    """Load and check everything; cheap refusals come before the model. Raises InputError.

    `lent` is the base of the plan's model section, where it is loaded already. With `blank` its weights
    are left out: everything can be counted and nothing run. `algorithm` takes the place of the plan's;
    `reading` says whose rows there are.
    """
    spread = on_workers(plan) and not blank
    if spread and plan.engine.kind == "ray":
        need_ray()
    elif spread:
        warm_up(PRELOAD)  # imports there while data and base are read here
    rows = reading(plan)
    corpus, parts = rows.corpus, rows.parts
    labels = drawn_labels(plan, corpus.train)
    base, encoder = make_base(plan, lent, blank=blank)
    shared = lend_to_workers(plan, base) if spread else None
    adapted = make_adapter(plan, base)
    forward = forward_of(plan, adapted, encoder.pad_id, base.device, blank=blank)
    order = sorted(row for mine in parts.rows.values() for row in mine)
    encode = partial(encoded_in, encoder=encoder, tokenizer=base.tokenizer, template=plan.template)
    train_file, test_file = (folder / name for name in TOKENS)
    encoded = encode(train_file, [corpus.train[row] for row in order])
    tested = encode(test_file, corpus.test[: plan.evaluation.limit])
    shares, held = share_out(plan, parts, encoded, order)
    supervised = encoded.supervised
    population = [
        Client(client, len(share), int(supervised[share].sum())) for client, share in shares.items()
    ]
    if rows.engine is not None:
        population = list(rows.engine.clients())
    method = with_compression(algorithm or make_algorithm(plan, population), plan.compression)
    method.scope(0, frozenset(adapted.parameters))  # refuses names that are not there
    lending = shared.bare() if shared else None
    odds = odds_of(plan, shares, [labels[order[row]] for row in encoded.rows if labels])
    pad = encoder.pad_id
    hosting = Hosting(plan, folder, shares, population, pad, lending, algorithm, odds)
    trainer = hosting.trainer(adapted, forward, encoded)
    return Job(
        plan,
        base,
        adapted,
        forward,
        encoder,
        corpus.hashes,
        parts,
        method,
        make_policy(plan.federation, plan.gate),
        rows.engine or make_engine(hosting, trainer, method, population, spread=spread),
        trainer,
        held_rows(tested, corpus.test, plan.evaluation.by),
        held,
        corpus.notes
        + division_notes(parts)
        + cut_notes("training", encoded)
        + cut_notes("test", tested)
        + together_note(plan, trainer)
        + weighing_note(plan.federation, method),
    )
