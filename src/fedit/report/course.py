"""How training went: held-out loss over rounds and over bytes sent."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from fedit.report.blocks import Block, Cell, Chart, Note, Section, Table
from fedit.report.charts import Point, Series, curves
from fedit.report.runs import RunView
from fedit.report.words import decimal, finite, line

T = TypeVar("T")

ROWS = 14
"""Rounds that a table shows at most."""


def by_round(run: RunView) -> list[Point]:
    """Held-out loss by round."""
    return [(float(round), loss) for round, loss in run.losses() if finite(loss)]


def by_bytes(run: RunView) -> list[Point]:
    """Held-out loss by megabytes sent so far, both ways and over all clients."""
    sent = list(accumulate(r.bytes_up + r.bytes_down for r in run.journal))
    at = {record.round: total / 1e6 for record, total in zip(run.journal, sent, strict=True)}
    return [(at[round], loss) for round, loss in run.losses() if finite(loss)]


def trained(run: RunView) -> list[Point]:
    """Training loss by round."""
    return [(float(r.round), r.loss) for r in run.journal if r.loss is not None and finite(r.loss)]


def mean(lines: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean line of those that have all its places: of each place, over both axes."""
    whole = [one for one in lines if one]
    shortest = min((len(one) for one in whole), default=0)
    return [
        (sum(p[0] for p in at) / len(at), sum(p[1] for p in at) / len(at))
        for at in ([one[place] for one in whole] for place in range(shortest))
    ]


def section(
    arms: Mapping[str, Sequence[RunView]],
    inks: Mapping[str, int],
    federated: Sequence[str],
    said: str = "",
) -> Section | None:
    """Charts of the arms' runs, each arm one line; None where no round was scored.

    `federated` names the arms that send their parameters, `said` ends the sentence above the charts.
    """
    lines = {name: [by_round(run) for run in runs] for name, runs in arms.items()}
    means = {name: mean(found) for name, found in lines.items()}
    if not any(means.values()):
        return None
    rounds = [
        Series(name, inks[name], means[name], lines[name], mean([trained(r) for r in arms[name]]))
        for name in arms
        if means[name]
    ]
    units = {run.unit for runs in arms.values() for run in runs}
    axis = f"loss, {units.pop()}" if len(units) == 1 else "loss, nats"
    blocks: list[Block] = [_over_rounds(rounds, axis)]
    if any(by_bytes(run)[-1:] > [(0.0, 0.0)] for name in federated for run in arms.get(name, ())):
        blocks.append(_over_bytes(arms, inks, federated, means, axis))
    if any(len(runs) > 1 for runs in arms.values()):
        blocks.append(
            Note("Bold lines are means over runs; the thin ones beside them are single runs.")
        )
    return Section(
        "course",
        "How training went",
        "Loss on questions that nobody trained on; the dotted lines are the loss in training itself."
        + said,
        blocks,
    )


def _over_rounds(series: Sequence[Series], axis: str) -> Chart:
    said = "; ".join(
        f"{line(one.name)} from {decimal(one.mean[0][1])} to {decimal(one.mean[-1][1])}"
        for one in series
    )
    drawn = curves(
        series,
        "round",
        axis,
        key="rounds",
        label=f"Held-out loss by round: {said}.",
    )
    places = sorted({round for one in series for round, _ in one.mean})
    rows = []
    for round in _some(places):
        at = [dict(one.mean).get(round) for one in series]
        rows.append([Cell(f"{round:.0f}"), *(Cell(decimal(loss, 3)) for loss in at)])
    table = Table("Held-out loss by round", ["Round", *(line(s.name) for s in series)], rows)
    return Chart(drawn, "Held-out loss over rounds.", table)


def _over_bytes(
    arms: Mapping[str, Sequence[RunView]],
    inks: Mapping[str, int],
    federated: Sequence[str],
    means: Mapping[str, Sequence[Point]],
    axis: str,
) -> Chart:
    sent = {name: [by_bytes(run) for run in arms.get(name, ())] for name in federated}
    series = [Series(n, inks[n], mean(found), found) for n, found in sent.items() if mean(found)]
    levels = [
        Series(f"{line(name)} (sends none)", inks[name], found, level=True)
        for name, found in means.items()
        if name not in federated and found
    ]
    said = "; ".join(
        f"{line(one.name)} {decimal(one.mean[-1][1])} after {decimal(one.mean[-1][0], 1)} MB"
        for one in series
    )
    label = f"Held-out loss by megabytes sent: {said}."
    drawn = curves([*series, *levels], "MB sent, both ways", axis, key="bytes", label=label)
    rows = [
        [Cell(line(one.name)), Cell(decimal(megabytes, 1)), Cell(decimal(loss, 3))]
        for one in series
        for megabytes, loss in _some(one.mean)
    ]
    table = Table("Held-out loss by bytes sent", ["", "MB sent", "Loss"], rows)
    caption = "Held-out loss over what all clients and the server sent each other."
    return Chart(drawn, caption, table)


def _some(places: Sequence[T]) -> list[T]:
    """So many of the places, evenly, the first and the last among them."""
    if len(places) <= ROWS:
        return list(places)
    step = (len(places) - 1) / (ROWS - 1)
    return [places[round(number * step)] for number in range(ROWS)]
