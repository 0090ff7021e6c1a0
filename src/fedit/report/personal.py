"""Clients' own models beside the global one: what `fedit evaluate --personal` left in a run's folder."""

from fedit.report.blocks import Cell, Table
from fedit.report.summary import Part
from fedit.report.words import decimal, line, percent

NAME = "personal.json"
SHOWN = 60
"""Clients that the table shows at most."""

MEASURES = {"exact_match": "EM", "token_f1": "F1", "loss": "Loss"}


class Score(Part):
    """What one model scored on some rows."""

    rows: int = 0
    loss: float | None = None
    exact_match: float | None = None
    token_f1: float | None = None


class Pair(Part):
    """A client's own model and the global one on the same rows."""

    own_model: Score
    global_model: Score


class Both(Part):
    """On the client's own held-out rows, and on the test rows."""

    own_rows: Pair | None = None
    test_rows: Pair | None = None


class Personal(Part):
    """Every client's scores, and their mean."""

    round: int
    algorithm: str
    tune: int | None = None
    limit: int | None = None
    personal: bool
    clients: dict[str, Both]
    mean: Both

    def own(self) -> dict[str, dict[str, float | None]]:
        """Own models' scores on own rows, by measure and client."""
        pairs = {c: both.own_rows.own_model for c, both in self.clients.items() if both.own_rows}
        return {
            word: {client: getattr(score, measure) for client, score in pairs.items()}
            for measure, word in MEASURES.items()
        }


def table(found: Personal, run: str = "") -> Table:
    """A row for each client and one for their mean: the own model's score, the global one's below it."""
    known = {"own_rows": "own rows", "test_rows": "test rows"}
    kinds = [(kind, word) for kind, word in known.items() if getattr(found.mean, kind)]
    names = list(found.clients)[:SHOWN]
    shown = [("mean of all", found.mean), *((name, found.clients[name]) for name in names)]
    rows = []
    for name, both in shown:
        cells = [c for kind, _ in kinds for c in _cells(getattr(both, kind))]
        rows.append([Cell(line(name), _rows(both)), *cells])
    said = f"Clients' own models, the global one's scores in small type, after round {found.round}"
    if run:
        said = f"{line(run)}: {said}"
    if found.tune is not None:
        said += f"; tuned on each client's rows for {found.tune:,} steps"
    if not found.personal:
        said += (
            f"; all own models are the global one, {line(found.algorithm)} gave clients no other"
        )
    if found.limit is not None:
        said += f"; the first {found.limit:,} rows of each"
    if len(found.clients) > SHOWN:
        said += f" (the first {SHOWN} clients; all are in {NAME})"
    heads = ["Client", *(head for _ in kinds for head in ("EM %", "F1 %", "Loss"))]
    return Table(said, heads, rows, groups=[("", 1), *((word, 3) for _, word in kinds)])


def _cells(pair: Pair | None) -> list[Cell]:
    if pair is None:
        return [Cell("–")] * len(MEASURES)
    own, usual = pair.own_model, pair.global_model
    return [
        *(
            Cell(percent(getattr(own, m)), percent(getattr(usual, m)))
            for m in ("exact_match", "token_f1")
        ),
        Cell(decimal(own.loss), decimal(usual.loss)),
    ]


def _rows(both: Both) -> str:
    count = both.own_rows.own_model.rows if both.own_rows else 0
    return f"{count:,} own rows" if count else ""
