"""Sums in fp64: exact about order, blind to layout."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit.core.gate import not_finite
from fedit.core.messages import ADAPTER
from fedit.core.sums import Sum, blocks

SIZES = [0, 1, 5, 40_000, 3, 32_768, 32_767, 7, 100_000]


def tensors() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=rng) for size in SIZES]


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 40))
def test_blocks_are_all_numbers_in_order(sizes, most):
    numbers = torch.arange(sum(sizes), dtype=torch.float32)
    found = list(blocks(numbers.split(sizes), most)) if sizes else []
    assert torch.equal(torch.cat([*found, torch.empty(0)]), numbers)
    assert all(len(block) <= most for block in found)


def test_large_small_and_turned_tensors_are_each_product_and_sum_rounded_once():
    trees = [{f"n{i}": t * k for i, t in enumerate(tensors())} for k in (1.0, 1.7, -0.3)]
    for one in trees:
        one["turned"] = one["n3"].reshape(200, 200).t()
    total = Sum()
    for one, weight in zip(trees, (0.1, 12.3, 7.7), strict=True):
        total.add({ADAPTER: one}, weight)
    for name, found in total.sums().items():
        wanted = trees[0][name].double() * 0.1 + trees[1][name].double() * 12.3
        assert torch.equal(found, wanted + trees[2][name].double() * 7.7)
    assert total.mass() == 0.1 + 12.3 + 7.7


def test_the_order_of_names_does_not_matter():
    one = {"b": torch.ones(2), "a": torch.zeros(3)}
    total = Sum()
    total.add({ADAPTER: one}, 1.0)
    total.add({ADAPTER: dict(reversed(one.items()))}, 1.0)
    assert total.sums()["b"].tolist() == [2.0, 2.0]


def test_the_memory_of_a_spare_sum_is_used_and_its_numbers_are_not():
    spare = Sum()
    spare.add({ADAPTER: {"a": torch.full((3,), torch.inf)}}, 1.0)
    place = spare.numbers[ADAPTER].data_ptr()
    total = Sum(numbers=spare.numbers, shapes=spare.shapes)
    assert total.sums() == {}
    before = replace(total)
    before.merge(total)
    assert before.mass() == 0.0
    total.add({ADAPTER: {"a": torch.ones(3)}}, 2.0)
    assert total.sums()["a"].tolist() == [2.0, 2.0, 2.0]
    assert total.numbers[ADAPTER].data_ptr() == place


def test_adding_to_a_total_is_merging_its_like():
    one, other = {"a": tensors()[3]}, {"a": tensors()[3].flip(0)}
    added = Sum()
    added.add({ADAPTER: one}, 0.3)
    merged = Sum()
    merged.merge(added)
    added.add({ADAPTER: other}, 0.7)
    single = Sum()
    single.add({ADAPTER: other}, 0.7)
    merged.merge(single)
    assert torch.equal(added.sums()["a"], merged.sums()["a"])


def test_a_negative_zero_survives():
    total, one = Sum(), Sum()
    one.add({ADAPTER: {"a": torch.tensor([-0.0])}}, 3.0)
    total.merge(one)
    assert math.copysign(1.0, total.mean()["a"].item()) == -1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 31, 40_000])
def test_one_bad_number_is_found_wherever_it_stands(dtype, bad, place):
    tensor = torch.randn(50_000).to(dtype)
    tree = {"good": torch.randn(9).to(dtype), "one": tensor, "two": tensor.clone()}
    assert not_finite(tree) is None
    tensor[place] = bad
    assert not_finite(tree) == "one"


def test_opposite_infinities_are_found_and_finite_numbers_that_overflow_pass():
    most = torch.finfo(torch.float32).max
    assert not_finite({"a": torch.tensor([math.inf, -math.inf])}) == "a"
    assert not_finite({"a": torch.full((100,), most)}) is None
    assert not_finite({"a": torch.tensor([most, most, -most, math.nan])}) == "a"


# ---- masses, counts, levels


def one_of(value: float, weight: float, role: str = ADAPTER) -> Sum:
    total = Sum()
    total.add({role: {"a": torch.tensor([value, -value])}}, weight)
    return total


def test_roles_have_masses_of_their_own():
    total = one_of(2.0, 0.5)
    total.add({ADAPTER: {"a": torch.tensor([4.0, 0.0])}, "control": {"c": torch.ones(1)}}, 1.5)
    assert total.masses == {ADAPTER: 2.0, "control": 1.5}
    assert (total.mass(), total.mass("control"), total.mass("unheard of")) == (2.0, 1.5, 0.0)
    assert total.mean()["a"].tolist() == [3.5, -0.5]
    other = one_of(8.0, 1.0, "control2")
    total.merge(other)
    assert total.masses == {ADAPTER: 2.0, "control": 1.5, "control2": 1.0}
    other.numbers["control2"].zero_()
    assert total.mean("control2")["a"].tolist() == [8.0, -8.0], "no memory is shared"


def test_counts_add_up_by_name_in_every_merge():
    total, other = Sum(), Sum()
    for name, number in (("steps", 3.0), ("loss", -0.5), ("steps", 4.0)):
        total.count(name, number)
    other.count("steps", 0.25)
    other.count("more", 1.0)
    total.merge(other)
    assert total.counts == {"steps": 7.25, "loss": -0.5, "more": 1.0}
    assert other.counts == {"steps": 0.25, "more": 1.0}
    assert total.masses == {}


def test_to_rise_changes_masses_and_sums_alike_and_no_count():
    total = one_of(2.0, 3.0)
    total.count("n", 5.0)
    total.rise(2.0)
    assert total.level == 2.0
    assert total.mass() == pytest.approx(3 * math.exp(-2), rel=1e-15)
    assert total.sums()["a"].tolist() == pytest.approx([6 * math.exp(-2), -6 * math.exp(-2)])
    assert total.mean()["a"].tolist() == pytest.approx([2.0, -2.0], rel=1e-15)
    assert total.counts == {"n": 5.0}


@pytest.mark.parametrize("level", [0.0, -1.0, -math.inf])
def test_it_never_sinks(level):
    total = one_of(2.0, 3.0)
    total.rise(level)
    assert total.level == 0.0
    assert (total.mass(), total.sums()["a"].tolist()) == (3.0, [6.0, -6.0])


def raised(value: float, weight: float, level: float) -> Sum:
    """That value with the weight times e^level, which may be more than a number can be."""
    total = Sum(level=-math.inf)
    total.rise(level)
    total.add({ADAPTER: {"a": torch.tensor([value, -value])}}, weight)
    return total


@given(
    st.lists(
        st.tuples(st.floats(-9, 9), st.floats(0.1, 9), st.floats(-2000, 2000)),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 6),
)
@settings(deadline=None)
def test_the_mean_of_sums_at_any_levels_is_the_softmax(parts, cut):
    """Merged one by one or in two halves; an empty sum in the midst changes nothing."""
    values, weights, levels = map(np.array, zip(*parts, strict=True))
    logits = np.log(weights) + levels
    shares = np.exp(logits - logits.max())
    wanted = float(values.astype(np.float32).astype(np.float64) @ (shares / shares.sum()))
    line, front, back = (Sum(level=-math.inf) for _ in range(3))
    for place, part in enumerate(parts):
        line.merge(raised(*part))
        (front if place < cut else back).merge(raised(*part))
    front.merge(Sum(level=-math.inf))
    front.merge(back)
    for found in (line, front):
        assert found.level == max(levels)
        assert found.mean()["a"].tolist() == pytest.approx([wanted, -wanted], rel=1e-9, abs=1e-9)


def test_a_merge_may_rise_either_and_loses_what_is_too_far_below():
    low, high = raised(2.0, 1.0, -1e4), raised(3.0, 1.0, 1e4)
    high.merge(low)
    assert (high.level, high.mass(), high.mean()["a"].tolist()) == (1e4, 1.0, [3.0, -3.0])
    low, high = raised(2.0, 1.0, -1e4), raised(3.0, 1.0, 1e4)
    low.merge(high)
    assert (low.level, low.mass(), low.mean()["a"].tolist()) == (1e4, 1.0, [3.0, -3.0])


@pytest.mark.parametrize("level", [-math.inf, -5.0, 0.0, 1e4])
def test_a_merge_with_an_empty_sum_changes_no_number(level):
    usual, empty = raised(2.0, 3.0, 1e4), Sum(level=level)
    usual.merge(empty)
    assert (usual.level, usual.mass(), usual.sums()["a"].tolist()) == (1e4, 3.0, [6.0, -6.0])
    empty = Sum(level=level)
    empty.merge(raised(2.0, 3.0, 1e4))
    assert (empty.level, empty.mass(), empty.sums()["a"].tolist()) == (1e4, 3.0, [6.0, -6.0])


def test_equal_levels_are_plain_sums_bit_for_bit():
    plain, high = Sum(), Sum(level=-math.inf)
    for value, weight in ((0.1, 0.3), (0.7, 1.9), (-3.3, 0.77)):
        plain.merge(one_of(value, weight))
        high.merge(raised(value, weight, 812.5))
    assert torch.equal(plain.sums()["a"], high.sums()["a"])
    assert plain.mass() == high.mass()
