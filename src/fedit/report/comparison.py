"""The page of one run, or of several side by side."""

import time
from collections.abc import Mapping, Sequence
from math import sqrt

from fedit.report import answers, costs, course, evenness, holdings, personal, settings
from fedit.report.blocks import TERMS, Block, Cell, Note, Page, Section, Table, shaded, share
from fedit.report.clients import grouped, matches
from fedit.report.holdings import Holdings
from fedit.report.runs import Evaluation, RunView
from fedit.report.summary import Answer
from fedit.report.words import decimal, interval, line, percent, signed


def page(runs: Sequence[RunView], held: Holdings, by: str | None, said: str) -> Page:
    """The whole page; `held` is the partition of the first run, `said` a word on it."""
    inks = {run.name: number % 9 for run, number in zip(runs, _order(len(runs)), strict=True)}
    lines = {run.name: [run] for run in runs}
    label = runs[0].plan.evaluation.by if runs[0].plan else "category"
    scored = {run.name: run.scores.items for run in runs if run.scores}
    costed = [costs.cost_of(run) for run in runs]
    memory = {run.name: most for run in runs if (most := costs.peak([run])) is not None}
    found: list[Section | None] = [
        _results(runs, label),
        course.section(lines, inks, list(lines)),
        holdings.section(held, by, said),
        answers.section(scored, next(iter(scored), ""), label, ""),
        costs.section(costed, memory, [costs.machine(runs[0].environment), *_failures(runs)]),
        _settings(runs),
    ]
    return Page(
        line(" · ".join(run.name for run in runs), 120),
        headline(runs),
        lead(runs),
        [fact for fact in (_date(runs), f"{len(runs)} runs" if len(runs) > 1 else "") if fact],
        [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes],
        TERMS,
        [section for section in found if section],
    )


def headline(runs: Sequence[RunView]) -> str:
    """The final held-out loss, or which run's is lowest."""
    ends = {run.name: run.losses()[-1] for run in runs if run.losses()}
    if not ends:
        return f"{line(runs[0].name)}: no held-out loss was measured"
    name = min(ends, key=lambda name: ends[name][1])
    round, loss = ends[name]
    if len(runs) == 1:
        rounds = "1 round" if round == 1 else f"{round:,} rounds"
        last = runs[0].last()
        ranked = (
            ""
            if last is None or last.accuracy is None
            else f"; {last.accuracy:.1%} of pairs ranked rightly"
        )
        return f"After {rounds} the held-out loss is {decimal(loss)} {runs[0].unit}{ranked}"
    unit = next(run.unit for run in runs if run.name == name)
    return f"{line(name)} ends with the lowest held-out loss: {decimal(loss)} {unit}"


def lead(runs: Sequence[RunView]) -> list[str]:
    """What else can be said in a sentence: the start, exact match with its interval, F1."""
    said = []
    if len(runs) == 1 and len(runs[0].losses()) > 1:
        began = runs[0].losses()[0]
        when = "before training" if began[0] == 0 else f"after round {began[0]}"
        said.append(f"It was {decimal(began[1])} {when}.")
    if len(runs) == 1 and runs[0].scores and (items := runs[0].scores.items):
        right = sum(item.correct for item in items)
        low, high = wilson(right, len(items))
        f1 = sum(item.f1 for item in items) / len(items)
        said.append(
            f"{signed(right / len(items))} of {len(items):,} questions are answered exactly right "
            f"({interval(low, high)}); F1 is {signed(f1)}."
        )
    if len(runs) > 1:
        said.append("These are single runs: a difference may be chance. fedit study measures that.")
    return said


def wilson(right: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, p = 1.959964, right / of
    middle, half = p + z * z / (2 * of), z * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def _results(runs: Sequence[RunView], label: str) -> Section:
    rows = []
    for run in runs:
        losses = [loss for _, loss in run.losses()]
        rows.append(
            [
                Cell(line(run.name)),
                Cell(f"{run.done:,}", f"of {run.planned:,}" if run.planned else ""),
                Cell(decimal(losses[0]) if losses else "–"),
                Cell(decimal(losses[-1]) if losses else "–"),
                *_scores(run.scores.items if run.scores else []),
            ]
        )
    heads = ["", "Rounds", "Loss at first", "Loss at last", "EM %", "F1 %"]
    blocks: list[Block] = [Table("Final scores", heads, rows)]
    blocks += [
        Note(
            f"Exact match, F1 and answers of {line(run.name)} are missing: fedit evaluate {run.path}"
        )
        for run in runs
        if not run.scores
    ]
    blocks += _groups(runs, label)
    blocks += evenness.blocks(evenness.of_runs(runs, label))
    blocks += [
        personal.table(run.personal, run.name if len(runs) > 1 else "")
        for run in runs
        if run.personal
    ]
    return Section("results", "Results", "Scores on questions that nobody trained on.", blocks)


def _groups(runs: Sequence[RunView], label: str) -> list[Block]:
    """Exact match and loss of every group: all measures of one run, or all runs measure by measure."""
    losses = {run.name: last.by for run in runs if (last := run.last())}
    items = {run.name: grouped(run.scores.items, label) for run in runs if run.scores}
    names: list[Mapping[str, object]] = [*items.values(), *losses.values()]
    groups = list(dict.fromkeys(group for by in names for group in by))
    if len(groups) < 2:
        return []
    if len(runs) == 1:
        own, measured = items.get(runs[0].name, {}), losses.get(runs[0].name, {})
        rows = [
            [Cell(line(group)), *_scores(own.get(group, [])), _loss(measured.get(group))]
            for group in groups
        ]
        return [Table(f"By {line(label)}", ["", "EM %", "F1 %", "Loss"], rows)]
    heads = ["", *(line(run.name) for run in runs)]
    rights = {name: matches(run) for name, run in items.items()}
    values = [[rights.get(run.name, {}).get(group) for run in runs] for group in groups]
    rows = [
        [Cell(line(group)), *(Cell(percent(value)) for value in own)]
        for group, own in zip(groups, values, strict=True)
    ]
    blocks: list[Block] = []
    if items:
        blocks.append(
            Table(f"EM % by {line(label)}", heads, shaded(rows, values), half=len(runs) < 5)
        )
    rows = [
        [Cell(line(group)), *(_loss(losses.get(run.name, {}).get(group)) for run in runs)]
        for group in groups
    ]
    return [*blocks, Table(f"Loss by {line(label)}", heads, rows, half=len(runs) < 5)]


def _scores(items: Sequence[Answer]) -> tuple[Cell, Cell]:
    """Exact match with its interval, and F1."""
    if not items:
        return Cell("–"), Cell("–")
    right = sum(item.correct for item in items)
    em = share(right / len(items), *wilson(right, len(items)))
    return em, share(sum(item.f1 for item in items) / len(items))


def _loss(found: Evaluation | None) -> Cell:
    return Cell(decimal(found.loss if found else None))


def _settings(runs: Sequence[RunView]) -> Section | None:
    section = settings.section({f"Plan of {line(run.name)}": run.text for run in runs}, runs)
    if section and (table := settings.differing(runs)):
        section.blocks.insert(0, table)
    return section


def _failures(runs: Sequence[RunView]) -> list[str]:
    """A sentence for each run in which clients failed."""
    said = []
    for run in runs:
        if failed := sum(len(record.failures) for record in run.journal):
            said.append(f"In {line(run.name)} {failed:,} client replies failed and were left out.")
    return said


def _date(runs: Sequence[RunView]) -> str:
    times = [record.time for run in runs for record in run.journal if record.time]
    return time.strftime("%Y-%m-%d", time.gmtime(max(times))) if times else ""


def _order(count: int) -> list[int]:
    """Colours that are easy to tell apart first."""
    return [(0, 6, 2, 3, 8, 5, 1, 4, 7)[number % 9] for number in range(count)]
