import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedit.core.amounts import part_of


@pytest.mark.parametrize(
    ("amount", "total", "wanted"),
    [
        (0.29, 100, 29),  # int(0.29 · 100) is 28
        (0.57, 100, 57),
        (0.1, 10, 1),
        (0.5, 5, 3),  # half up, not to even
        (0.5, 1, 1),
        (0.25, 2, 1),
        (0.01, 5, 1),  # never nobody
        (1.0, 7, 7),
        (1, 7, 1),
        (5, 3, 3),
        (1e-05, 100_000, 1),
        (np.float64(0.29), 100, 29),
    ],
)
def test_by_hand(amount, total, wanted):
    assert part_of(amount, total) == wanted


@pytest.mark.parametrize(
    ("amount", "total", "wanted"),
    [(0.5, 5, 3), (0.5, 4, 2), (0.7, 10, 7), (0.29, 100, 29), (3, 9, 3)],
)
def test_up_never_asks_for_more_than_the_share(amount, total, wanted):
    assert part_of(amount, total, up=True) == wanted


@given(st.integers(1, 1000), st.integers(1, 10_000))
def test_shares_in_thousandths_are_exact(thousandths, total):
    exact = Fraction(thousandths, 1000) * total
    share = thousandths / 1000
    assert part_of(share, total) == max(1, math.floor(exact + Fraction(1, 2)))
    assert part_of(share, total, up=True) == max(1, math.ceil(exact))


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 10_000))
def test_a_share_is_someone_and_not_more_than_all(share, total):
    assert 1 <= part_of(share, total) <= part_of(share, total, up=True) <= total
