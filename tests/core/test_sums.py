"""Sums in fp64: exact about order, blind to layout."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
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
