"""Amounts given as a count or as a fraction of something, rounded exactly."""

import math
from fractions import Fraction


def part_of(amount: int | float, total: int, *, up: bool = False) -> int:
    """How many of `total` an amount means: an int is a count (capped at total), a float in (0, 1] a share.

    Shares are computed exactly from their decimal digits and rounded half up (or up, if `up`), at least 1.

    >>> part_of(0.29, 100), part_of(0.1, 10), part_of(5, 3), part_of(0.5, 5), part_of(0.01, 5)
    (29, 1, 3, 3, 1)
    """
    if isinstance(amount, int):
        return min(amount, total)
    share = Fraction(repr(float(amount))) * total
    return max(1, math.ceil(share) if up else math.floor(share + Fraction(1, 2)))
