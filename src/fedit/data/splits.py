"""Exact duplicates removed, and the held-out test set taken from the training rows."""

from dataclasses import dataclass

from fedit.core.amounts import part_of
from fedit.core.errors import InputError
from fedit.core.examples import Example
from fedit.core.seeds import generator
from fedit.data.columns import labels


@dataclass(frozen=True)
class Distinct:
    """Distinct training and test rows, and how many were removed for which reason."""

    train: list[Example]
    test: list[Example]
    repeated_in_train: int
    repeated_in_test: int
    train_in_test: int


def drop_duplicates(train: list[Example], test: list[Example]) -> Distinct:
    """Keeps the first of rows with the same turns, of pairs both; what stands in `test` leaves `train`."""
    tested = _first(test)
    trained = _first(train)
    kept = [example for talks, example in trained.items() if talks not in tested]
    return Distinct(
        train=kept,
        test=list(tested.values()),
        repeated_in_train=len(train) - len(trained),
        repeated_in_test=len(test) - len(tested),
        train_in_test=len(trained) - len(kept),
    )


def _first(examples: list[Example]) -> dict[object, Example]:
    first: dict[object, Example] = {}
    for example in examples:
        first.setdefault(example.talks, example)
    return first


def holdout(
    examples: list[Example], size: int | float, by: str | None = None, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """(train, test), both in file order: `size` random rows, or a share of them, go to the test.

    An int is a number of rows, for each value of the column `by` when one is given (FedIT,
    arXiv 2305.05644: 10 rows for each of 8 categories); a float in (0, 1) is a share of all
    rows, at least one, spread over the values of `by` as the rows are (a rare value may go to the
    test whole). Raises InputError for another size, for a count that would leave a value without
    training rows, and when nothing at all would be left to train on.
    """
    if isinstance(size, bool) or size <= 0 or (isinstance(size, float) and not size < 1):
        raise InputError(
            f"held-out size {size!r}: give a whole number of rows of at least 1, or a share "
            "between 0 and 1"
        )
    groups = labels(examples, by, seed=seed) if by else ["all rows"] * len(examples)
    rows: dict[str, list[int]] = {group: [] for group in sorted(set(groups))}
    for row, group in enumerate(groups):
        rows[group].append(row)
    counts = {group: len(held) for group, held in rows.items()}
    take = _share(counts, size) if isinstance(size, float) else dict.fromkeys(counts, size)
    for group, count in counts.items():
        if isinstance(size, int) and count <= size:
            raise InputError(
                f"held-out size {size}: {group!r} has {count} rows, and at least one must stay "
                "for training; ask for fewer"
            )
    if sum(take.values()) >= len(examples):
        raise InputError(f"held-out size {size}: nothing of {len(examples)} rows is left to train")
    rng = generator(seed, "holdout")
    tested = {
        row
        for group in rows
        for row in rng.choice(rows[group], take[group], replace=False).tolist()
    }
    train = [example for row, example in enumerate(examples) if row not in tested]
    return train, [examples[row] for row in sorted(tested)]


def _share(counts: dict[str, int], share: float) -> dict[str, int]:
    """Rows to take from each group, by largest remainder, summing to the share of all rows."""
    exact = {group: share * count for group, count in counts.items()}
    take = {group: int(rows) for group, rows in exact.items()}
    missing = part_of(share, sum(counts.values())) - sum(take.values())
    for group in sorted(exact, key=lambda group: take[group] - exact[group])[:missing]:
        take[group] += 1
    return take
