"""What `fedit evaluate` prints: scores by group, how even they are, and every client's own model."""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fedit.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

FAIRNESS = ("worst 10 %", "gap", "variance", "entropy", "Jain")
MEASURES = {"loss": "loss", "exact_match": "EM", "token_f1": "F1"}
ROWS = {"own_rows": "own", "test_rows": "test"}
OVER = {"by": "groups", "language": "languages"}


def print_scores(result: Mapping[str, Any]) -> None:
    """Scores overall and by group, and how even they are."""
    _notes(result)
    table = _table(f"after round {result['round']}", "rows", "loss", "perplexity", "EM", "F1")
    groups = result["by"] if set(result["by"]) != {"all"} else {}
    for name, part in [("all", result), *groups.items()]:
        table.add_row(
            _text(name),
            f"{part['rows']:,}",
            "not finite" if part["loss"] is None else f"{part['loss']:.4f}",
            "not finite" if part["perplexity"] is None else f"{part['perplexity']:,.1f}",
            f"{part['exact_match']:.1%}",
            f"{part['token_f1']:.1%}",
        )
    rows = [
        (f"{word} over {even[measure]['count']} {OVER[over]}", even[measure])
        for over, even in result["fairness"].items()
        for measure, word in MEASURES.items()
        if measure in even and measure != "loss"
    ]
    _print(table, *_fairness(rows))


def print_personal(result: Mapping[str, Any]) -> None:
    """Every client's own model beside the global one, their mean, and how even they are."""
    _notes(result)
    model = f"{result['algorithm']} after round {result['round']}"
    if result["tune"] is not None:
        model += f", own models tuned for {result['tune']} steps"
    kinds = {kind: word for kind, word in ROWS.items() if result["mean"][kind]}
    _print(*(_personal(result, kind, f"{model}: {word} rows") for kind, word in kinds.items()))
    rows = [
        (f"{word} {whose}, {what} rows", even[measure])
        for kind, what in kinds.items()
        for whose in ("own", "global")
        if (kind, whose) != ("test_rows", "global")  # one model on the same rows
        for even in [result["fairness"][kind][f"{whose}_model"]]
        for measure, word in MEASURES.items()
        if measure in even
    ]
    _print(*_fairness(rows))


def _personal(result: Mapping[str, Any], kind: str, title: str) -> "Table":
    heads = [head for word in MEASURES.values() for head in (f"{word} own", "global")]
    table = _table(title, "rows", *heads)
    for name, one in result["clients"].items():
        count = f"{one[kind]['own_model']['rows']:,}" if one[kind] else "–"
        table.add_row(_text(name), count, *_both(one[kind]))
    table.add_section()
    table.add_row("mean", "", *_both(result["mean"][kind]))
    return table


def _both(pair: Mapping[str, Any] | None) -> list[str]:
    """Own and global model, measure by measure."""
    models = ("own_model", "global_model")
    return [_number(m, pair[model][m]) if pair else "–" for m in MEASURES for model in models]


def _number(measure: str, value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.3f}" if measure == "loss" else f"{value:.1%}"


def _fairness(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> "list[Table]":
    """One table, or none where there is nothing to compare."""
    table = _table("how even", *FAIRNESS)
    for name, one in rows:
        keys = ("worst", "gap", "variance", "entropy", "jain")
        table.add_row(name, *("–" if one[k] is None else f"{one[k]:.4f}" for k in keys))
    return [table] if table.row_count else []


def _table(title: str, *columns: str) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, box=SIMPLE)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _text(name: str) -> str:
    from rich.markup import escape

    return escape(printable(name))


def _notes(result: Mapping[str, Any]) -> None:
    for note in result["notes"]:
        print(f"note: {printable(note)}", file=sys.stderr)


def _print(*tables: "Table") -> None:
    from rich.console import Console

    for table in tables:
        Console().print(table)
