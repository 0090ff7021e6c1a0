"""Bootstrap intervals: exact where nothing varies, paired, and right about as often as they say."""

import numpy as np
import pytest

from fedit.evaluate.intervals import difference, draws, mean, ratio

RNG = np.random.default_rng(0)


def test_the_mean_is_exact_and_inside_its_interval():
    values = RNG.random((3, 50))
    found = mean(values, draws(3, 50))
    assert found.mean == pytest.approx(values.mean())
    assert found.low < found.mean < found.high


def test_nothing_varies_so_the_interval_is_a_point():
    found = mean(np.full((2, 5), 0.5), draws(2, 5))
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    one = mean(np.array([[0.25]]), draws(1, 1))
    assert (one.mean, one.low, one.high) == (0.25, 0.25, 0.25)


def test_an_interval_of_a_share_covers_it_as_often_as_it_says():
    """200 samples of 100 answers each, right with p = 0.3: 95 % of the intervals hold 0.3."""
    drawn = draws(1, 100)
    covered = 0
    for _ in range(200):
        found = mean((RNG.random((1, 100)) < 0.3).astype(float), drawn)
        covered += found.low <= 0.3 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_width_is_that_of_the_normal_approximation():
    values = (RNG.random((1, 400)) < 0.5).astype(float)
    found = mean(values, draws(1, 400))
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)


def test_seeds_that_differ_widen_the_interval():
    items = RNG.random((1, 200))
    alike, unlike = items + np.zeros((3, 1)), items + np.array([[-0.2], [0.0], [0.2]])
    drawn = draws(3, 200)
    wide, narrow = mean(unlike, drawn), mean(alike, drawn)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_differences_are_paired_by_item():
    hard = (RNG.random((1, 100)) < 0.5).astype(float)
    drawn = draws(1, 100)
    found = difference(hard + 0.1, hard, drawn)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    apart = difference(np.roll(hard, 1) + 0.1, hard, drawn)
    assert apart.high - apart.low > 0.1


def test_ratios_are_paired_and_have_no_value_over_nothing():
    values = RNG.random((2, 40)) + 0.1
    found = ratio(2 * values, values, draws(2, 40))
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2, 2))
    none = ratio(values, np.zeros((2, 40)), draws(2, 40))
    assert (none.mean, none.low, none.high) == (None, None, None)
    rare = np.zeros((1, 40))
    rare[0, 0] = 1
    some = ratio(values[:1], rare, draws(1, 40))
    assert some.mean is not None
    assert (some.low, some.high) == (None, None), "some resamples hold none of it"


def test_what_is_not_finite_has_no_mean():
    values = np.ones((1, 4))
    values[0, 2] = np.nan
    assert mean(values, draws(1, 4)).mean is None


def test_the_same_draws_every_time():
    one, other = draws(3, 20), draws(3, 20)
    assert np.array_equal(one.items, other.items)
    assert np.array_equal(one.seeds, other.seeds)
    assert (one.items.sum(axis=1) == 20).all()
    assert (one.seeds.sum(axis=1) == 3).all()
