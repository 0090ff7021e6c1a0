"""How evenly a model serves groups or clients: what a mean over them hides."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fairness:
    """Measures over the n ≥ 2 finite values x ≥ 0 among those given, losses or scores.

    `count`     n, the values measured
    `missing`   values left out: None, NaN or infinite
    `mean`      Σx/n
    `worst`     mean of the ⌈n/10⌉ worst, the highest losses or the lowest scores (arXiv 1905.10497)
    `gap`       between the best and the worst, max x − min x ≥ 0
    `variance`  Σ(x − mean)²/n, from 0 to gap²/4
    `entropy`   −Σ p ln p with p = x/Σx, in nats from 0 to ln n, which says that all are equal
    `jain`      Jain's index (Σx)²/(nΣx²), from 1/n, where one has all, to 1, where all are equal

    `entropy` and `jain` are None where every x is 0: their formulas are 0/0 there.
    """

    count: int
    missing: int
    mean: float
    worst: float
    gap: float
    variance: float
    entropy: float | None
    jain: float | None


def fairness(values: Mapping[str, float | None], *, losses: bool) -> Fairness | None:
    """The measures over values by name; None with fewer than two finite ones, between which nothing lies.

    `losses` says that high is bad, as of a loss in nats; otherwise low is, as of exact match or F1. What is
    None, NaN or infinite is left out and counted in `missing`: a client whose model diverged is the worst
    off, but by no number. Raises ValueError for a value below 0, which is neither.
    """
    known = {name: x for name, x in values.items() if x is not None and math.isfinite(x)}
    if below := [name for name, x in known.items() if x < 0]:
        raise ValueError(
            f"fairness: {below[0]} is {known[below[0]]}; losses and scores are 0 or more"
        )
    n = len(known)
    if n < 2:
        return None
    ordered = sorted(known.values(), reverse=losses)  # the worst first
    tenth = ordered[: math.ceil(n / 10)]
    mean, gap = math.fsum(ordered) / n, abs(ordered[0] - ordered[-1])
    variance = math.fsum((x - mean) * (x - mean) for x in ordered) / n
    return Fairness(
        count=n,
        missing=len(values) - n,
        mean=mean,
        worst=math.fsum(tenth) / len(tenth),
        gap=gap,
        variance=min(variance, gap * gap / 4),  # its bound, which rounding would pass by a hair
        **_evenness(ordered),
    )


def _evenness(values: list[float]) -> dict[str, float | None]:
    """Entropy and Jain's index; rounding may not lead them out of their ranges."""
    n, most = len(values), max(values)
    if not most:
        return {"entropy": None, "jain": None}
    scaled = [x / most for x in values]  # squares can neither overflow nor all vanish
    total = math.fsum(scaled)
    entropy = -math.fsum(p * math.log(p) for x in scaled if (p := x / total) > 0)
    jain = total * total / (n * math.fsum(x * x for x in scaled))
    return {
        "entropy": min(max(0.0, entropy), math.log(n)),
        "jain": min(max(jain, 1 / n), 1.0),
    }
