"""How many samples a federation sees in a round, and how many steps show one client as many."""

import math
from collections.abc import Sequence

import numpy as np

from fedit.config import Plan
from fedit.core.amounts import part_of


def expected_samples(plan: Plan, sizes: Sequence[int]) -> float:
    """Samples that the plan's cohort sees in a round, on average over the draws of cohorts.

    `sizes` are the clients' numbers of rows.
    """
    steps, epochs, batch = plan.local.steps, plan.local.epochs or 1, plan.local.batch
    seen = [samples_in(steps, n, batch) if steps else epochs * n for n in sizes]
    chances = np.array(_chances(plan, sizes))
    return float(chances @ np.array(seen)) * (1 - plan.federation.dropout)


def samples_in(steps: int, rows: int, batch: int) -> int:
    """Samples in so many steps: the last batch of an epoch is smaller where rows do not divide."""
    epochs, rest = divmod(steps, math.ceil(rows / batch))
    return epochs * rows + min(rest * batch, rows)


def steps_for(samples: float, rows: int, batch: int) -> int:
    """The steps, at least one, whose samples come closest to a budget."""
    first = max(1, int(samples / rows) * math.ceil(rows / batch))
    near = range(first, first + math.ceil(rows / batch) + 1)
    return min(near, key=lambda steps: abs(samples_in(steps, rows, batch) - samples))


def _chances(plan: Plan, sizes: Sequence[int]) -> list[float]:
    """Each client's chance of being in a cohort, whose sampler may draw it more than once."""
    count, total = part_of(plan.federation.cohort, len(sizes)), sum(sizes)
    if plan.federation.sampler == "uniform":
        return [count / len(sizes)] * len(sizes)
    if plan.federation.sampler == "multinomial":
        return [1 - (1 - n / total) ** count for n in sizes]
    joins = [min(1.0, count * n / total) for n in sizes]  # poisson
    some = 1 - math.prod(1 - chance for chance in joins)
    return [chance / some for chance in joins]
