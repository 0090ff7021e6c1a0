"""`fedit partition`: who would hold what, how unlike the clients are, and the picture of it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedit.config import Labelled, Plan
from fedit.core.examples import Example
from fedit.corpus import divide, division_notes, labels_of, read_data
from fedit.data.partition import Parts
from fedit.data.skew import Skew, skew
from fedit.printable import printable
from fedit.report.figures import partition_figure, save


@dataclass(frozen=True)
class Division:
    """A partition, the column it is measured over (one label a row), and its skew."""

    parts: Parts
    column: str
    labels: list[str]
    skew: Skew
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON values: each client's name, rows and label counts, and the measures."""
        clients = {
            client: {
                "name": self.parts.names[client],
                "rows": len(rows),
                "labels": dict(Counter(self.labels[row] for row in rows).most_common()),
            }
            for client, rows in self.parts.rows.items()
        }
        return {
            "column": self.column,
            "rows": sum(len(rows) for rows in self.parts.rows.values()),
            "clients": clients,
            "skew": self.skew.to_dict(),
            "moved": self.parts.moved,
            "dropped": self.parts.dropped,
            "notes": self.notes,
        }


def describe(plan: Plan, by: str | None = None) -> Division:
    """Partition the plan's training rows and measure the result over column `by`. Raises InputError."""
    corpus = read_data(plan)
    parts = divide(plan, corpus.train)
    column = by or _column(plan, corpus.train)
    found = labels_of(plan, corpus.train, column)
    notes = corpus.notes + division_notes(parts)
    return Division(parts, column, found, skew(parts.rows, found), notes)


def draw(division: Division, path: Path) -> None:
    """Write the picture of a partition."""
    figure = partition_figure(
        division.parts.rows,
        division.labels,
        names=division.parts.names,
        title=f"Rows of each client by {division.column.lstrip('@')}",
        caption=str(division.skew),
    )
    save(figure, path)


def lines(division: Division) -> list[str]:
    """The partition for a person: a line a client, then the measures."""
    out = [f"note: {note}" for note in division.notes]
    width = max(len(client) for client in division.parts.rows)
    for client, rows in division.parts.rows.items():
        counts = Counter(division.labels[row] for row in rows).most_common()
        shown = ", ".join(f"{label} {count}" for label, count in counts[:4])
        out.append(f"{client:{width}} {len(rows):>7,} rows  {shown}{', …' * (len(counts) > 4)}")
    return [printable(line) for line in (*out, f"over {division.column}: {division.skew}")]


def _column(plan: Plan, examples: list[Example]) -> str:
    """The partition's own column, else the column results are shown by, else length."""
    if isinstance(plan.partition, Labelled):
        return plan.partition.column
    by = plan.evaluation.by
    return by if all(by in example.labels for example in examples) else "@length"
