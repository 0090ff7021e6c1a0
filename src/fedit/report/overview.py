"""A study's outcome in tables: the arms side by side, and what each is good at."""

from collections.abc import Sequence

from fedit.report import evenness
from fedit.report.blocks import Block, Cell, Chart, Fold, Note, Section, Table, shaded, share
from fedit.report.charts import Dots, dots
from fedit.report.claims import first
from fedit.report.summary import Arm, Estimate, OwnRows, Summary
from fedit.report.words import decimal, finite, interval, line, percent, signed

KINDS = {
    "base": "the model as it came, no training",
    "local": "each owner trains alone on its own data",
    "federated": "owners train together, data stays with them",
    "central": "all data in one place",
}
"""What the kinds of arms are, in a few words."""

_COLOURS = {"base": 9, "local": 6, "central": 3}
_FEDERATED = (0, 2, 8, 4, 1)


def colours(arms: Sequence[Arm]) -> dict[str, int]:
    """A colour for each arm: the same for the same kind on every page."""
    found: dict[str, int] = {}
    more = iter(_FEDERATED * (len(arms) + 1))
    for arm in arms:
        wanted = _COLOURS.get(arm.kind)
        found[arm.name] = next(more) if wanted is None or wanted in found.values() else wanted
    return found


def arms_section(summary: Summary) -> Section:
    """All arms side by side, the best and worst that trained alone, and every category and language."""
    blocks: list[Block] = [_arms(summary)]
    blocks += [Note(text) for text in spread(summary)]
    blocks.append(groups(summary, "em"))
    blocks.append(
        Fold("The same by F1 and by loss", [groups(summary, "f1"), groups(summary, "loss")])
    )
    if chart := relative(summary):
        blocks.append(chart)
    blocks += personal(summary)
    even = evenness.blocks(evenness.of_arms(summary))
    blocks += [Fold(b.caption, [b]) if isinstance(b, Table) else b for b in even]
    return Section(
        "results",
        "Who answers best",
        f"Every arm answers the same {summary.items:,} held-out questions, "
        f"over {_seeds(summary)}. The bar is the interval, the mark on it the mean.",
        blocks,
    )


def _seeds(summary: Summary) -> str:
    return f"{len(summary.seeds)} seeds" if len(summary.seeds) != 1 else "one seed"


def _arms(summary: Summary) -> Table:
    rows = []
    for arm in summary.arms:
        em, f1, loss = (arm.at("all", measure) for measure in ("em", "f1", "loss"))
        note = KINDS.get(arm.kind, arm.kind)
        rate = f"{arm.lr:g}" if arm.lr is not None else "–"
        rows.append(
            [
                Cell(line(arm.name), line(note)),
                share(em.mean, em.low, em.high),
                share(f1.mean, f1.low, f1.high),
                _loss(loss),
                Cell(f"{arm.runs:,}" if arm.kind != "base" else "–"),
                Cell(f"{arm.samples:,.0f}" if arm.samples else "–"),
                Cell(rate),
            ]
        )
    heads = ["", "EM %", "F1 %", "Loss", "Runs", "Samples", "Learning rate"]
    return Table("All arms, with 95 % intervals in small type", heads, rows)


def _loss(found: Estimate) -> Cell:
    ends = f"{decimal(found.low)}–{decimal(found.high)}" if finite(found.low) else ""
    return Cell(decimal(found.mean), ends)


def personal(summary: Summary) -> list[Block]:
    """Clients' own models on their own rows and on the test rows; nothing where a study scored none."""
    rows = []
    for own in summary.personal:
        said = f"tuned for {own.tune:,} step{'s' * (own.tune > 1)}" if own.tune else ""
        cells = [c for part in (own.own_rows, own.test_rows) for c in _own_model(part)]
        rows.append([Cell(line(own.arm), said), *cells])
    if not rows:
        return []
    heads = ["", *("EM %", "Gain", "Worst tenth", "Jain") * 2]
    found = Table(
        "Clients' own models, each client counting once, the global model's number in small type",
        heads,
        rows,
        groups=[("", 1), ("own rows", 4), ("test rows", 4)],
    )
    note = (
        f"The gain is that over the global model of {line(summary.personal[0].arm)} on the same clients' "
        "rows, with its 95 % interval over clients of all seeds."
    )
    return [found, Note(note)]


def _own_model(part: OwnRows | None) -> list[Cell]:
    if part is None:
        return [Cell("–")] * 4
    own, usual, gain = part.own_model, part.global_model, part.gain.get("em")
    one, other = (model.fairness.get("exact_match") for model in (own, usual))
    return [
        Cell(percent(own.em.mean), percent(usual.em.mean)),
        Cell(signed(gain.mean), interval(gain.low, gain.high)) if gain else Cell("–"),
        Cell(percent(one.worst if one else None), percent(other.worst if other else None)),
        Cell(decimal(one.jain if one else None), decimal(other.jain if other else None)),
    ]


def spread(summary: Summary) -> list[str]:
    """A sentence for each arm of several runs a seed: its best and its worst."""
    said = []
    for arm, by in summary.spread.items():
        parts = [
            f"{measure.upper()} ranges from {signed(ends.worst.value)} ({line(ends.worst.client)}, "
            f"seed {ends.worst.seed}) to {signed(ends.best.value)} ({line(ends.best.client)}, "
            f"seed {ends.best.seed})"
            for measure, ends in by.items()
        ]
        said.append(f"Over the single runs of {line(arm)}, {'; '.join(parts)}.")
    return said


def names_of(summary: Summary) -> list[str]:
    """The groups of items that any arm has scores of: "all" first, then as they come."""
    found = dict.fromkeys(group for arm in summary.arms for group in arm.metrics)
    return ["all", *(group for group in found if group != "all")]


def group_name(group: str) -> str:
    """A group as a person reads it: "category/open_qa" is "open_qa", "language/en" names its label."""
    label, slash, value = group.partition("/")
    if not slash:
        return line(group)
    return line(value) if label == "category" else f"{line(label)}: {line(value)}"


def groups(summary: Summary, measure: str) -> Table:
    """Every group against every arm, shaded from none to the best; loss is shown unshaded."""
    rows, values = [], []
    for group in names_of(summary):
        found = [arm.at(group, measure) for arm in summary.arms]
        if measure == "loss":
            cells = [_loss(one) for one in found]
        else:
            cells = [Cell(percent(one.mean), interval(one.low, one.high)) for one in found]
        rows.append([Cell(group_name(group)), *cells])
        values.append([None if measure == "loss" else one.mean for one in found])
    names = [line(arm.name) for arm in summary.arms]
    unit = "Loss" if measure == "loss" else f"{measure.upper()} %"
    labels = dict.fromkeys(g.partition("/")[0] for g in names_of(summary) if "/" in g)
    caption = f"{unit} by {line(' and '.join(labels) or 'group')}"
    return Table(caption, ["", *names], shaded(rows, values))


def relative(summary: Summary) -> Chart | None:
    """F1 of every arm, that of the federated one being 100, overall and by category."""
    together = first(summary, "federated")
    if together is None:
        return None
    rows = []
    for group in names_of(summary):
        base = together.at(group, "f1").mean
        if base:
            values = {arm.name: arm.at(group, "f1").mean for arm in summary.arms}
            found = {name: 100 * mean / base for name, mean in values.items() if mean is not None}
            rows.append(Dots(group_name(group), found))
    if not rows:
        return None
    shown = {row.name for row in rows}
    lost = [name for group in names_of(summary) if (name := group_name(group)) not in shown]
    inks, name = colours(summary.arms), line(together.name)
    overall = ", ".join(f"{line(k)} {v:.0f}" for k, v in rows[0].values.items())
    table = Table(
        f"F1 relative to {name}",
        ["", *(line(arm) for arm in inks)],
        [
            [Cell(row.name), *(Cell(decimal(row.values.get(arm), 0)) for arm in inks)]
            for row in rows
        ],
    )
    drawn = dots(
        rows,
        inks,
        f"F1 relative to {name} (= 100)",
        key="relative",
        label=f"Relative F1 by arm and category; {name} is 100. {rows[0].name}: {overall}.",
    )
    caption = (
        f"F1 of each arm relative to {name} (= 100), overall and by category, after Figure 3 of "
        "FedIT (arXiv 2305.05644). Left of the line: worse than training together."
    )
    if lost:
        caption += f" Without those where {name} scores nothing: {', '.join(lost)}."
    return Chart(drawn, caption, table, wide=True)
