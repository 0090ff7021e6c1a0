"""A study's outcome in sentences, each claim only as far as its interval bears it."""

from collections.abc import Sequence

from fedit.report.summary import Arm, Comparison, Estimate, Summary
from fedit.report.words import finite, interval, line, percent, signed


def first(summary: Summary, kind: str) -> Arm | None:
    """The first arm of a kind, which stands for it in sentences."""
    return next((arm for arm in summary.arms if arm.kind == kind), None)


def headline(summary: Summary) -> tuple[str, list[str]]:
    """The outcome in a sentence, and what follows from it, each claim only where its interval bears it."""
    together = first(summary, "federated")
    if together is None:
        return f"{line(summary.name)}: {len(summary.arms)} arms compared", []
    name, em = line(together.name), together.at("all", "em")
    title = (
        f"Trained together, the model answers {signed(em.mean)} of {summary.items:,} questions "
        "exactly right"
    )
    if finite(em.low):
        title += f" ({interval(em.low, em.high)})"
    lead = []
    if alone := first(summary, "local"):
        lead += _gain(alone, _between(summary.differences, together.name, alone.name))
    if whole := first(summary, "central"):
        lead += _ratio(name, whole, _between(summary.ratios, together.name, whole.name))
    if len(summary.seeds) == 1:
        lead.append("One seed: the intervals cover the choice of questions, not that of the seed.")
    return title, lead


def _between(found: Sequence[Comparison], arm: str, over: str) -> Comparison | None:
    return next((one for one in found if (one.arm, one.over) == (arm, over)), None)


def _gain(alone: Arm, found: Comparison | None) -> list[str]:
    """The differences from training alone, in exact match and in F1."""
    if found is None or found.em is None or found.f1 is None:
        return []
    there = f"owners who train alone ({signed(alone.at('all', 'em').mean)})"
    said = [
        _points(found.em, "That is", f" than {there}", f"No difference from {there} is shown"),
        _points(found.f1, "By F1 it is", "", "By F1 no difference is shown"),
    ]
    return [" ".join(filter(None, said))] if any(said) else []


def _points(found: Estimate, begin: str, end: str, open_: str) -> str:
    """A difference in points: more or fewer where the interval leaves out none, else `open_`."""
    if found.mean is None or found.low is None or found.high is None:
        return ""
    much = f"{percent(abs(found.mean))} points"
    if found.low > 0:
        return f"{begin} {much} more ({interval(found.low, found.high)}){end}."
    if found.high < 0:
        return f"{begin} {much} fewer ({interval(-found.high, -found.low)}){end}."
    return f"{open_}: {interval(found.low, found.high)} points."


def _ratio(name: str, whole: Arm, found: Comparison | None) -> list[str]:
    f1 = found.f1 if found else None
    if f1 is None or f1.mean is None or f1.low is None or f1.high is None:
        return []
    ends = interval(f1.low, f1.high, 0)
    said = f"{name} reaches {signed(f1.mean, 0)} ({ends}) of the F1 of training on all data in one place"
    if f1.low <= 1 <= f1.high:
        said += "; no difference between the two is shown"
    return [said + "."]
