"""A run's examples: read, checked, de-duplicated, held out, and shared out to clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedit import config
from fedit.config import Plan
from fedit.core.amounts import part_of
from fedit.core.errors import InputError
from fedit.core.examples import Example
from fedit.core.seeds import generator, stream
from fedit.data import partition
from fedit.data.columns import labels
from fedit.data.nearest import nearest
from fedit.data.partition import Parts
from fedit.data.sources import checked, read_source
from fedit.data.splits import drop_duplicates, holdout
from fedit.data.temperature import tempered

if TYPE_CHECKING:  # only to name types: sharing data out needs no tokenizer
    from fedit.train.encoded import Encoded, EncodedSet

Places = NDArray[np.int64]
"""Where a client's rows stand among the encoded ones, ascending."""


@dataclass(frozen=True)
class Corpus:
    """Training and test examples, the hash of every file read, and what a person should know of them."""

    train: list[Example]
    test: list[Example]
    hashes: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Held:
    """Encoded examples to score, each with its group, and its place among the examples it was read with."""

    rows: Sequence["Encoded"]
    groups: list[str]
    places: list[int]


def read_data(plan: Plan) -> Corpus:
    """Read, check, de-duplicate and hold out, as the plan says. Raises InputError."""
    data = plan.data
    source = read_source(data.train, mapping=data.columns, split=data.split, revision=data.revision)
    notes, hashes = checked(source, data.bad_rows), dict(source.files)
    train, test = source.examples, list[Example]()
    if data.test is not None:
        held = read_source(
            data.test, mapping=_columns(data), split=data.test_split, revision=data.revision
        )
        notes += checked(held, data.bad_rows)
        test, hashes = held.examples, hashes | {f"test {k}": v for k, v in held.files.items()}
    _check_pairs(plan, [*train, *test])
    if data.duplicates == "drop":
        distinct = drop_duplicates(train, test)
        for count, what in (
            (distinct.repeated_in_train, "repeated training rows"),
            (distinct.repeated_in_test, "repeated test rows"),
            (distinct.train_in_test, "training rows that stand in the test"),
        ):
            if count:
                notes.append(f"dropped {count} {what}")
        train, test = distinct.train, distinct.test
    if data.limit is not None:
        train = train[: data.limit]
    if data.holdout is not None:
        seed = plan.seed if data.holdout.seed is None else data.holdout.seed
        train, test = holdout(train, data.holdout.size, data.holdout.by, seed)
    if not train:
        raise InputError(f"data.train {data.train!r}: no usable row is left to train on")
    return Corpus(train, test, hashes, notes)


def read_test(plan: Plan) -> Corpus:
    """The test rows alone, for a server whose clients have their own. Raises InputError."""
    data = plan.data
    if data.test is None:
        return Corpus([], [], {}, [])
    held = read_source(
        data.test, mapping=_columns(data), split=data.test_split, revision=data.revision
    )
    notes = checked(held, data.bad_rows)
    _check_pairs(plan, held.examples)
    return Corpus([], held.examples, {f"test {k}": v for k, v in held.files.items()}, notes)


def _columns(data: config.Data) -> dict[str, str] | None:
    """Which columns of the test hold what: the same as in training, unless one is built in."""
    return None if data.test == "microworld" else data.columns


def _check_pairs(plan: Plan, examples: Sequence[Example]) -> None:
    """Refuse rows that are not what the plan's objective learns from. Raises InputError naming the first."""
    pairs = plan.local.objective == "dpo"
    wrong = next((example for example in examples if bool(example.rejected) != pairs), None)
    if wrong and pairs:
        raise InputError(
            f"local.objective dpo learns from pairs, but {wrong.where} of data.train or data.test is none: "
            "give rows with chosen and rejected answers, say which columns hold them with data.columns "
            "{instruction: …, chosen: …, rejected: …}, or set local.objective: sft"
        )
    if wrong:
        raise InputError(
            f"local.objective sft learns from single answers, but {wrong.where} of data.train or data.test "
            "is a pair of chosen and rejected: set local.objective: dpo, or take the chosen alone with "
            "data.columns {instruction: …, response: chosen}"
        )


def divide(plan: Plan, examples: list[Example]) -> Parts:
    """Give every example to exactly one client, as plan.partition says. Raises InputError."""
    how, rng = plan.partition, generator(plan.seed, "partition")
    if isinstance(how, config.Key):
        parts = partition.by_key(labels_of(plan, examples, how.column))
        return partition.without_small(parts, how.minimum, how.small)
    partition.check_enough(len(examples), how.clients, how.minimum)
    if isinstance(how, config.Dirichlet):
        found = labels_of(plan, examples, how.column)
        parts = partition.dirichlet(found, how.clients, how.alpha, rng)
    elif isinstance(how, config.Shards):
        found = labels_of(plan, examples, how.column)
        parts = partition.shards(found, how.clients, how.shards, rng)
    elif isinstance(how, config.Sizes):
        parts = partition.sizes(len(examples), how.clients, how.alpha, rng)
    else:
        parts = partition.iid(len(examples), how.clients, rng)
    return partition.at_least(parts, how.minimum, rng)


def taking_part(parts: Parts, only: Sequence[str] | None) -> Parts:
    """The parts of the clients in `only`, all of them where it is None. Raises InputError."""
    if only is None:
        return parts
    for client in only:
        if client not in parts.rows:
            some = ", ".join(list(parts.rows)[:5]) + ", …" * (len(parts.rows) > 5)
            raise InputError(
                f"federation.only: no client is called {client!r}{nearest(client, parts.rows)}; "
                f"there are {some}"
            )
    return replace(parts, rows={c: rows for c, rows in parts.rows.items() if c in set(only)})


def all_to(client: str, examples: Sequence[Example]) -> Parts:
    """Every example to the one client there is."""
    return Parts({client: list(range(len(examples)))}, {client: client})


def division_notes(parts: Parts) -> list[str]:
    """What sharing out had to move or leave out, a line each."""
    notes = []
    if parts.moved:
        notes.append(f"partition: {parts.moved} rows moved so that each client has its minimum")
    if parts.dropped:
        named = ", ".join(parts.dropped[:5]) + ", …" * (len(parts.dropped) > 5)
        notes.append(f"partition: {len(parts.dropped)} clients below the minimum left out: {named}")
    return notes


def labels_of(plan: Plan, examples: list[Example], column: str) -> list[str]:
    """Each example's value in a column, or in a derived one such as @length."""
    bins = getattr(plan.partition, "bins", 8)
    return labels(examples, column, bins=bins, seed=stream(plan.seed, "labels") % 2**32)


def held_rows(encoded: "EncodedSet", examples: Sequence[Example], by: str) -> Held:
    """Encoded rows with their label in column `by`; "all" where a row has none."""
    known = {label for example in examples for label in example.labels}
    if examples and by not in known and by != "category":  # the default need not be there
        raise InputError(
            f"evaluation.by: no held-out row has a column {by!r}{nearest(by, known)}; "
            f"there are {', '.join(sorted(known))}"
        )
    groups = [examples[row].labels.get(by, "all") for row in encoded.rows]
    return Held(encoded.encoded, groups, encoded.rows.tolist())


def share_out(
    plan: Plan, parts: Parts, encoded: "EncodedSet", dealt: Sequence[int]
) -> tuple[dict[str, Places], Held]:
    """Each client's places in `encoded` for training, and the share of rows it keeps for validation.

    `encoded` holds the rows `dealt`, in this order, but for those with nothing to learn. Raises InputError.
    """
    place, origin = (
        np.full(max(dealt, default=-1) + 1, -1),
        np.asarray(dealt, dtype=np.int64)[encoded.rows],
    )
    place[origin] = np.arange(len(encoded.rows))
    train, aside, groups = dict[str, Places](), list[Places](), list[str]()
    share = plan.partition.validation
    for client, rows in parts.rows.items():
        mine = place[rows]
        mine = mine[mine >= 0]
        if not len(mine):
            raise InputError(
                f"partition: client {parts.names[client]} has no row to learn from "
                f"({len(rows)} rows, none of them leaves an answer within template.max_length "
                f"{plan.template.max_length}); raise max_length or partition.minimum"
            )
        if count := min(part_of(share, len(mine)), len(mine) - 1) if share else 0:
            mixed = generator(plan.seed, "validation", client).permutation(len(mine))
            aside.append(mine[np.sort(mixed[:count])])
            groups += [client] * count
            mine = mine[np.sort(mixed[count:])]
        train[client] = mine
    held = np.concatenate([np.arange(0), *aside])
    return train, Held(encoded.select(held), groups, origin[held].tolist())


def drawn_labels(plan: Plan, examples: list[Example]) -> list[str]:
    """Each example's label for `data.temperature`; none without it. Raises InputError for its column."""
    if plan.data.temperature is None:
        return []
    try:
        return labels_of(plan, examples, plan.data.temperature.by)
    except InputError as error:
        raise InputError(f"data.temperature.by: {error}") from None


def odds_of(
    plan: Plan, shares: Mapping[str, Places], labels: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Each client's chances to draw its rows, by `data.temperature`; empty where all are alike.

    `labels` are those of the rows that the places in `shares` count.
    """
    how = plan.data.temperature
    if how is None or how.t == 1:  # bit for bit alike: epochs in which every row comes once
        return {}
    return {
        client: tempered([labels[place] for place in places], how.t)
        for client, places in shares.items()
    }


def cut_notes(what: str, encoded: "EncodedSet") -> list[str]:
    """What encoding had to cut or leave out, a line each."""
    notes = []
    if encoded.prompts_cut:
        notes.append(f"{encoded.prompts_cut} {what} prompts cut to template.max_length")
    if encoded.answers_cut:
        notes.append(f"{encoded.answers_cut} {what} answers cut to template.max_length")
    if encoded.unlearnable:
        first = encoded.unlearnable[0]
        notes.append(
            f"{len(encoded.unlearnable)} {what} rows with nothing to learn left out, "
            f"first {first.where}: {first.reason}"
        )
    return notes
