"""Scores a run's adapter on any instruction data: loss, and answers against references."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedit.build import forward_of, make_adapter, make_base
from fedit.config import Plan
from fedit.core.errors import InputError
from fedit.core.examples import Example
from fedit.core.messages import ADAPTER, State, models
from fedit.corpus import cut_notes, read_data
from fedit.data.sources import checked, read_source
from fedit.data.splits import drop_duplicates
from fedit.evaluate.generate import generate
from fedit.evaluate.items import Item, check_rules, loss_of, make_items
from fedit.evaluate.loss import row_losses
from fedit.evaluate.stored import Scores, write_scores
from fedit.recipe import load_plan
from fedit.records import fairness_record, loss_record
from fedit.report.folder import RunFolder
from fedit.train.adapters import Adapted
from fedit.train.forward import Forward
from fedit.train.model import Base, fingerprint
from fedit.train.prompts import Encoder


@dataclass(frozen=True)
class Loaded:
    """A run's model: base, adapter as last saved, and the encoder of its prompts."""

    plan: Plan
    base: Base
    adapted: Adapted
    forward: Forward
    encoder: Encoder
    state: State
    hashes: dict[str, str]


@dataclass(frozen=True)
class Saved:
    """What a run folder says of a run: its plan, its environment and its last state."""

    plan: Plan
    known: dict[str, Any]
    state: State


def saved_run(path: Path) -> Saved:
    """Read a run folder, finished or not, without loading a model. Raises InputError."""
    folder = RunFolder(path, read_only=True)
    known = folder.environment()
    state, troubles = folder.latest(known["run"])
    if state is None:
        why = "; ".join(troubles) or "nothing was saved yet"
        raise InputError(f"run folder {path}: no usable checkpoint ({why}); run it first")
    return Saved(load_plan(path / "plan.yaml"), known, state)


def load_run(path: Path, cluster: int = 0) -> Loaded:
    """Load the last state of a run, finished or not, with that one of its global models.

    Raises InputError, also where there are fewer clusters.
    """
    saved = saved_run(path)
    plan, known, state = saved.plan, saved.known, saved.state
    if cluster >= (count := len(models(state.public))):
        raise InputError(
            f"cluster {cluster}: {path} has {count} global model{'s' * (count > 1)}, counted from 0"
        )
    base, encoder = make_base(plan)
    adapted = make_adapter(plan, base)
    check_base(base, adapted, known, path)
    adapted.load({**state.public, ADAPTER: models(state.public)[cluster]})
    forward = forward_of(plan, adapted, encoder.pad_id, base.device)
    return Loaded(plan, base, adapted, forward, encoder, state, known["data"])


def check_base(base: Base, adapted: Adapted, known: Mapping[str, Any], path: Path) -> None:
    """Refuse another base than the run's, whose environment is `known`. Raises InputError."""
    now = fingerprint(adapted.model, skip=adapted.parameters.values())
    if (
        str(base.device) == known["device"] and now != known["base"]
    ):  # elsewhere its precision may differ
        raise InputError(
            f"model {base.source}: is not the base that {path} was trained on (its weights have changed); "
            "put that one back"
        )


def check_data(
    plan: Plan, then: Mapping[str, str], now: Mapping[str, str], remedy: str = "put the files back"
) -> None:
    """Refuse other data than the run's, by the hashes of its files. Raises InputError."""
    if then != now:
        raise InputError(
            f"data.train {plan.data.train!r} or its test has changed since the run, so the rows held "
            f"out now may be rows it trained on; {remedy}"
        )


def score(
    path: Path,
    data: str | None = None,
    *,
    limit: int | None = None,
    predictions: Path | None = None,
    cluster: int = 0,
) -> dict[str, Any]:
    """Loss per token, perplexity, exact match and token F1, overall and by group, as JSON values.

    `fairness` says how even they are over the groups ("by"), and over the values of the label "language"
    where rows have it; see `fedit.evaluate.fairness`.

    `data` is any source the plan's `data.columns` and `data.bad_rows` apply to, else the run's own
    held-out rows, whose items are kept in the run's `scores.json`; `predictions` names a JSONL file for
    prompt, answer and reference of every row; `cluster` which of IFCA's global models is scored.
    EM and F1 are shares in [0, 1]. Raises InputError.
    """
    began = time.perf_counter()
    loaded = load_run(path, cluster)
    examples, notes = _examples(loaded, data)
    if predictions is not None:
        _write(predictions, [])  # refused now rather than after all the work
    items, cut = score_items(loaded, examples[:limit])
    if not items:
        raise InputError(f"data {data!r}: no row leaves an answer within template.max_length")
    if predictions is not None:
        _write(predictions, items)
    if data is None and limit is None and not cluster:
        write_scores(path, Scores(loaded.state.round, time.perf_counter() - began, items))
    by = _by(items, loaded.plan.evaluation.by)
    spoken = _by([item for item in items if "language" in item.labels], "language")
    even = {"by": fairness_record(by), "language": fairness_record(spoken)}
    return {
        "round": loaded.state.round,
        **summary(items),
        "by": by,
        "fairness": {over: measured for over, measured in even.items() if measured},
        "notes": notes + cut,
    }


def score_items(loaded: Loaded, examples: Sequence[Example]) -> tuple[list[Item], list[str]]:
    """The model's loss and answer on each example, and what a person should know of the rows left out.

    Raises InputError for a rule of checking that nobody knows.
    """
    check_rules(examples)
    plain = [replace(example, rejected="") for example in examples]  # of a pair what was chosen
    encoded = loaded.encoder.encode_all(plain)
    examples = [examples[row] for row in encoded.rows]
    losses = row_losses(loaded.forward, encoded.encoded, loaded.plan.evaluation.batch)
    items = make_items(examples, answer_all(loaded, examples), losses)
    return items, cut_notes("scored", encoded)


def answer_all(loaded: Loaded, examples: Sequence[Example]) -> list[str]:
    """The model's greedy answers to the last question of each example."""
    new, encoder = loaded.plan.evaluation.max_new_tokens, loaded.encoder
    places = getattr(loaded.base.model.config, "max_position_embeddings", None) or 10**9
    reserved = max(
        0, loaded.plan.template.max_length + new - places
    )  # prompts as in training if they fit
    prompts = [encoder.prompt_ids(example.turns[:-1], reserved) for example in examples]
    generated = generate(
        loaded.adapted.model,
        prompts,
        max_new_tokens=new,
        stop_ids=encoder.stop_ids,
        pad_id=encoder.pad_id,
        batch_size=loaded.plan.evaluation.batch,
        device=loaded.base.device,
        room=loaded.plan.template.max_length,
    )
    return [encoder.decode(ids) for ids in generated]


def _examples(loaded: Loaded, data: str | None) -> tuple[list[Example], list[str]]:
    plan = loaded.plan
    if data is None:
        corpus = read_data(plan)
        check_data(plan, loaded.hashes, corpus.hashes, "put the files back, or give --data FILE")
        if not corpus.test:
            raise InputError(
                "the run has no held-out rows (data.test, data.holdout): give --data FILE"
            )
        return corpus.test, []
    source = read_source(data, mapping=plan.data.columns, split=plan.data.test_split)
    notes = checked(source, plan.data.bad_rows)
    distinct = drop_duplicates([], source.examples)
    if distinct.repeated_in_test:
        notes.append(f"dropped {distinct.repeated_in_test} repeated rows")
    return distinct.test, notes


def _by(items: Sequence[Item], label: str) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.labels.get(label, "all"), []).append(item)
    return {group: summary(groups[group]) for group in sorted(groups)}


def summary(items: Sequence[Item]) -> dict[str, Any]:
    """Rows, loss, perplexity, supervised tokens, exact match and token F1 of at least one item."""
    return {
        "rows": len(items),
        **loss_record(loss_of(items)),
        "exact_match": sum(item.correct for item in items) / len(items),
        "token_f1": sum(item.f1 for item in items) / len(items),
    }


def _write(path: Path, items: Sequence[Item]) -> None:
    keys = ("where", "question", "context", "answer", "reference")
    lines = [
        json.dumps({key: getattr(item, key) for key in keys}, ensure_ascii=False) for item in items
    ]
    try:
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--predictions {path}: cannot be written ({error.strerror})") from None
