"""How evenly models serve groups and clients, in one small table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedit.evaluate.fairness import fairness
from fedit.report.blocks import Block, Cell, Note, Table
from fedit.report.clients import grouped, matches
from fedit.report.runs import RunView
from fedit.report.summary import Summary
from fedit.report.words import decimal, line

WHAT = (
    "The worst tenth is the mean of the highest losses or the lowest scores; the gap lies between best and "
    "worst. Entropy is highest, and Jain's index 1, where all are served alike."
)


@dataclass(frozen=True)
class Measured:
    """A measure's values by group or client, and what they are of."""

    name: str
    over: str
    values: Mapping[str, float | None]
    losses: bool = False


def blocks(measured: Sequence[Measured]) -> list[Block]:
    """The table and a word on it; nothing where no measure has two values.

    A value below 0, which only a damaged file has, is left out.
    """
    rows = []
    for one in measured:
        sound = {name: x for name, x in one.values.items() if x is None or not x < 0}
        if found := fairness(sound, losses=one.losses):
            over = f"over {found.count:,} {one.over}"
            if found.missing:
                over += f", {found.missing:,} without a finite value"
            numbers = (found.worst, found.gap, found.variance, found.entropy, found.jain)
            rows.append([Cell(one.name, over), *(Cell(decimal(x, 3)) for x in numbers)])
    heads = ["", "Worst tenth", "Gap", "Variance", "Entropy", "Jain"]
    return [Table("How even", heads, rows), Note(WHAT)] if rows else []


def of_runs(runs: Sequence[RunView], label: str) -> list[Measured]:
    """Each run's scores by label and by language, its held-out loss by label and by client."""
    found = []
    for run in runs:
        name = f"{line(run.name)}: " if len(runs) > 1 else ""
        items = run.scores.items if run.scores else []
        labelled = {"language": [item for item in items if "language" in item.labels]}
        for by, own in ({label: items} | labelled).items():
            groups = grouped(own, by)
            f1 = {g: sum(i.f1 for i in part) / len(part) for g, part in groups.items()}
            over = f"groups by {line(by)}"
            found += [
                Measured(f"{name}EM", over, matches(groups)),
                Measured(f"{name}F1", over, f1),
            ]
        if last := run.last():
            for over, parts in ((f"groups by {line(label)}", last.by), ("clients", last.clients)):
                losses = {group: part.loss for group, part in parts.items()}
                found.append(Measured(f"{name}Loss", over, losses, losses=True))
        if run.personal:
            found += [
                Measured(f"{name}{word} of own models, own rows", "clients", values, word == "Loss")
                for word, values in run.personal.own().items()
            ]
    return found


def of_arms(summary: Summary) -> list[Measured]:
    """Each arm's mean EM and F1 by every label of the study."""
    found = []
    for arm in summary.arms:
        labels = dict.fromkeys(g.partition("/")[0] for g in arm.metrics if "/" in g)
        for label in labels:
            groups = [g for g in arm.metrics if g.startswith(f"{label}/")]
            found += [
                Measured(
                    f"{line(arm.name)}: {measure.upper()}",
                    f"groups by {line(label)}",
                    {g: arm.at(g, measure).mean for g in groups},
                )
                for measure in ("em", "f1")
            ]
    return found
