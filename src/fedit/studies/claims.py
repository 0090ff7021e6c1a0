"""What a summary allows to be said in words: no more than its intervals show."""

from collections.abc import Iterator
from typing import Any

Summary = dict[str, Any]

_NAMES = {"em": "EM", "f1": "F1"}


def headline(summary: Summary) -> str | None:
    """The federation's score against clients alone and all rows together, with intervals."""
    arms = first_arms(summary)
    if "federated" not in arms:
        return None
    fed = arms["federated"]
    scored = next(arm for arm in summary["arms"] if arm["name"] == fed)
    parts = []
    if local := arms.get("local"):
        gain = pair(summary, "differences", fed, local)["em"]
        parts.append(f"{percent(gain, unit=' EM', sign=True)} over {local}")
    if central := arms.get("central"):
        share = pair(summary, "ratios", fed, central)["f1"]
        if share["mean"] is not None:
            parts.append(f"{number(share, 2)} of {central}'s F1")
    start = f"{fed} {percent(scored['metrics']['all']['em'], unit=' EM')}"
    return f"{start}: {', '.join(parts)}" if parts else start


def ordering(summary: Summary) -> list[str]:
    """Whether base < clients alone < federated ≤ all rows together holds, step by step."""
    arms = first_arms(summary)
    steps = (("base", "local"), ("local", "federated"), ("federated", "central"))
    return [
        step(summary, arms[lower], arms[upper])
        for lower, upper in steps
        if lower in arms and upper in arms
    ]


def step(summary: Summary, lower: str, upper: str) -> str:
    """Which of two arms scores higher, by EM and by F1, where the interval of the difference shows it."""
    difference = pair(summary, "differences", upper, lower)
    words = []
    for measure, name in _NAMES.items():
        low, high = difference[measure]["low"], difference[measure]["high"]
        if low is None or low <= 0 <= high:
            sign = "no difference shown"
        else:
            sign = f"{lower} < {upper}" if low > 0 else f"{lower} > {upper}"
        words.append(f"{name} {percent(difference[measure], sign=True)}, {sign}")
    return f"{upper} over {lower}: " + "; ".join(words)


def first_arms(summary: Summary) -> dict[str, str]:
    """The first arm of each kind."""
    found: dict[str, str] = {}
    for arm in summary["arms"]:
        found.setdefault(arm["kind"], arm["name"])
    return found


def pair(summary: Summary, part: str, arm: str, over: str) -> dict[str, Any]:
    """The differences or ratios of two arms."""
    found: Iterator[dict[str, Any]] = (
        one for one in summary[part] if (one["arm"], one["over"]) == (arm, over)
    )
    return next(found)


def percent(estimate: dict[str, float | None], *, unit: str = "", sign: bool = False) -> str:
    """A share and its interval, in per cent.

    >>> percent({"mean": 0.621, "low": 0.58, "high": 0.663})
    '62.1 (58.0–66.3)'
    """
    scaled = {key: value if value is None else 100 * value for key, value in estimate.items()}
    return number(scaled, 1, unit=unit, sign=sign)


def number(
    estimate: dict[str, float | None], digits: int, *, unit: str = "", sign: bool = False
) -> str:
    """A mean and its interval; "not finite" where it is not."""
    mean, low, high = estimate["mean"], estimate["low"], estimate["high"]
    if mean is None:
        return "not finite"
    text = f"{mean:{'+' if sign else ''}.{digits}f}{unit}"
    if low is None or high is None:
        return text
    dash = "–" if low >= 0 else " to "
    return f"{text} ({low:.{digits}f}{dash}{high:.{digits}f})"
