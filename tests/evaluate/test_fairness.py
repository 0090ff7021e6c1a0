"""Fairness over groups: numbers worked out by hand, and what must hold of any."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedit.evaluate.fairness import fairness

VALUES = st.lists(st.floats(0, 1e6), min_size=2, max_size=40)


def named(values) -> dict:
    return {f"c{place}": value for place, value in enumerate(values)}


def test_scores_by_hand():
    # Σ = 1.5, mean 1/2; (1/4)² twice and 0 → variance 1/24; Σx² = 1/16 + 1/4 + 9/16 = 7/8
    found = fairness({"a": 0.25, "b": 0.5, "c": 0.75}, losses=False)
    assert (found.count, found.missing) == (3, 0)
    assert found.mean == 0.5
    assert found.worst == 0.25
    assert found.gap == 0.5
    assert found.variance == pytest.approx(1 / 24)
    assert found.jain == pytest.approx(2.25 / (3 * 7 / 8))
    # p = 1/6, 1/3, 1/2
    assert found.entropy == pytest.approx(math.log(6) / 6 + math.log(3) / 3 + math.log(2) / 2)


def test_of_losses_the_highest_are_the_worst_a_tenth_of_them_rounded_up():
    values = named(range(1, 21))  # 1 … 20: two are a tenth
    assert fairness(values, losses=True).worst == 19.5
    assert fairness(values, losses=False).worst == 1.5
    assert fairness({**values, "more": 30.0}, losses=True).worst == (30 + 20 + 19) / 3
    assert fairness(values, losses=True).variance == pytest.approx((20**2 - 1) / 12)


def test_one_that_has_all_and_none_that_has_any():
    found = fairness({"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0}, losses=False)
    assert (found.entropy, found.jain, found.gap) == (0, 1 / 4, 1)
    nothing = fairness({"a": 0.0, "b": 0.0}, losses=False)
    assert (nothing.entropy, nothing.jain, nothing.gap, nothing.worst) == (None, None, 0, 0)


def test_what_is_no_number_is_left_out_and_counted():
    odd = {"x": None, "y": math.nan, "z": math.inf}
    found = fairness({"a": 1.0, "b": 3.0, **odd}, losses=True)
    assert (found.count, found.missing, found.mean, found.worst) == (2, 3, 2, 3)
    assert fairness({"a": 1.0, **odd}, losses=True) is None
    assert fairness({}, losses=True) is None


def test_a_value_below_0_is_refused_by_name():
    with pytest.raises(ValueError, match=r"b is -0\.5"):
        fairness({"a": 1.0, "b": -0.5}, losses=True)


@given(VALUES, st.booleans())
def test_every_measure_keeps_to_its_range(values, losses):
    found, n = fairness(named(values), losses=losses), len(values)
    assert min(values) <= found.worst <= max(values) * (1 + 1e-15)
    assert found.worst >= found.mean * (1 - 1e-12) if losses else found.worst <= found.mean * 1.001
    assert 0 <= found.variance <= found.gap**2 / 4
    if max(values):
        assert 0 <= found.entropy <= math.log(n)
        assert 1 / n <= found.jain <= 1


@given(VALUES, st.booleans())
def test_names_and_their_order_do_not_matter(values, losses):
    turned = {f"other {place}": value for place, value in enumerate(reversed(values))}
    assert fairness(turned, losses=losses) == fairness(named(values), losses=losses)


@given(st.floats(1e-300, 1e300), st.integers(2, 30))
def test_equal_values_are_as_even_as_can_be(value, n):
    found = fairness(named([value] * n), losses=True)
    assert found.gap == found.variance == 0
    assert found.worst == pytest.approx(value)
    assert found.jain == pytest.approx(1)
    assert found.entropy == pytest.approx(math.log(n))


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20))
def test_the_unit_does_not_matter_to_evenness_and_scores_mirror_losses(values):
    found, double = (fairness(named(x), losses=True) for x in (values, [2 * v for v in values]))
    assert (double.entropy, double.jain) == (found.entropy, found.jain)
    assert double.gap == 2 * found.gap
    top = max(values)
    mirrored = fairness(named([top - value for value in values]), losses=False)
    assert mirrored.gap == pytest.approx(found.gap)
    assert mirrored.variance == pytest.approx(found.variance, abs=1e-9)
    assert mirrored.worst == pytest.approx(top - found.worst, abs=1e-9)
