"""What it took: time, tokens, bytes and memory of every arm, and the machine."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedit.report.blocks import Block, Cell, Note, Section, Table
from fedit.report.runs import RunView
from fedit.report.summary import Cost
from fedit.report.words import duration, line, size

HEADS = ["", "Runs", "Training", "Scoring", "Tokens", "Sent up", "Sent down", "Peak memory"]


def cost_of(run: RunView) -> Cost:
    """What one run took, from its journal and its scores."""
    evaluated = sum(r.seconds.get("evaluate", 0.0) for r in run.journal)
    return Cost(
        arm=run.name,
        train_seconds=sum(r.seconds.get("round", 0.0) for r in run.journal),
        evaluate_seconds=evaluated + ((run.scores.seconds or 0.0) if run.scores else 0.0),
        tokens=sum(r.tokens for r in run.journal),
        bytes_up=sum(r.bytes_up for r in run.journal),
        bytes_down=sum(r.bytes_down for r in run.journal),
    )


def section(
    costs: Sequence[Cost], memory: Mapping[str, float], said: Sequence[str]
) -> Section | None:
    """A row for each arm, its runs added up; `memory` is each arm's peak in MiB."""
    if not costs:
        return None
    rows = []
    for arm in dict.fromkeys(cost.arm for cost in costs):
        own = [cost for cost in costs if cost.arm == arm]
        tokens = total(own, "tokens")
        peak = memory.get(arm)
        rows.append(
            [
                Cell(line(arm)),
                Cell(f"{len(own):,}"),
                Cell(duration(total(own, "train_seconds"))),
                Cell(duration(total(own, "evaluate_seconds"))),
                Cell("–" if tokens is None else f"{tokens:,.0f}"),
                Cell(size(total(own, "bytes_up"))),
                Cell(size(total(own, "bytes_down"))),
                Cell(size(None if peak is None else peak * 2**20)),
            ]
        )
    blocks: list[Block] = [
        Table("Added up over the runs of each row; memory is the largest", HEADS, rows)
    ]
    blocks += [Note(text) for text in said if text]
    return Section("cost", "What it took", "Time, data and memory.", blocks)


def total(costs: Sequence[Cost], what: str) -> float | None:
    """The sum over runs that know it, None where none does."""
    known = [value for cost in costs if (value := getattr(cost, what)) is not None]
    return float(sum(known)) if known else None


def peak(runs: Sequence[RunView]) -> float | None:
    """The most memory that any of the runs used, in MiB."""
    return max((r.memory_mib for run in runs for r in run.journal if r.memory_mib), default=None)


def machine(environment: Mapping[str, Any]) -> str:
    """A sentence on the machine of a run."""
    if not environment:
        return ""
    threads, device = environment.get("threads", "?"), environment.get("device", "?")
    where, python = environment.get("platform", "?"), environment.get("python", "?")
    return line(f"Machine: {where}, Python {python}, device {device}, {threads} threads.", 300)
