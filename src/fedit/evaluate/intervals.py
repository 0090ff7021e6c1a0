"""95 % intervals by the bootstrap: seeds are drawn anew, and within them the items that arms share."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedit.core.seeds import generator

Values = npt.NDArray[np.float64]

RESAMPLES = 2000
_ENDS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval; None where it is not finite."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Draws:
    """How often each seed and each item counts in each resample; the same for every arm, so paired.

    With one seed only items are drawn anew: the interval then says nothing of other seeds.
    """

    seeds: Values  # resamples × seeds
    items: Values  # resamples × items


def draws(seeds: int, items: int, resamples: int = RESAMPLES) -> Draws:
    """Resamples of so many seeds and items, the same every time."""
    rng = generator(0, "bootstrap", seeds, items)
    return Draws(
        rng.multinomial(seeds, [1 / seeds] * seeds, size=resamples).astype(np.float64),
        rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64),
    )


def mean(values: Values, drawn: Draws, weights: Values | None = None) -> Estimate:
    """The mean of `values` (seeds × items): their sum over that of `weights`, where those are given.

    >>> mean(np.ones((1, 4)), draws(1, 4))
    Estimate(mean=1.0, low=1.0, high=1.0)
    """
    weights = np.ones_like(values) if weights is None else weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return _estimate(values.sum() / weights.sum(), _sums(values, drawn) / _sums(weights, drawn))


def difference(one: Values, other: Values, drawn: Draws) -> Estimate:
    """The mean of `one` less that of `other`, item by item: both are seeds × items."""
    return mean(one - other, drawn)


def ratio(one: Values, other: Values, drawn: Draws) -> Estimate:
    """The mean of `one` over that of `other`, on the same resamples."""
    return mean(one, drawn, other)


def _sums(values: Values, drawn: Draws) -> Values:
    sums: Values = ((drawn.seeds @ values) * drawn.items).sum(axis=1)
    return sums


def _estimate(point: float, resampled: Values) -> Estimate:
    if not np.isfinite(resampled).all():
        return Estimate(float(point) if np.isfinite(point) else None, None, None)
    low, high = np.percentile(resampled, _ENDS)
    return Estimate(float(point), float(low), float(high))
