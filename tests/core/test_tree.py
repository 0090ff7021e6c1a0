import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedit.core.tree import (
    cast_like,
    double,
    map_trees,
    norm,
    only,
    same,
    scale,
    spec,
    sub,
)

LEFT = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3.0])}
RIGHT = {"b": torch.tensor([10.0]), "a": torch.tensor([[20.0, 30.0]])}


def test_arithmetic_goes_by_name_not_by_place():
    assert same(sub(LEFT, RIGHT), {"a": torch.tensor([[-19.0, -28.0]]), "b": torch.tensor([-7.0])})
    assert same(scale(LEFT, -2.0), {"a": torch.tensor([[-2.0, -4.0]]), "b": torch.tensor([-6.0])})


def test_a_name_that_one_tree_lacks_is_an_error_not_a_gap():
    with pytest.raises(KeyError, match="b"):
        map_trees(torch.add, LEFT, {"a": LEFT["a"]})


def test_double_owns_its_memory_even_when_it_is_fp64_already():
    already = {"a": torch.ones(2, dtype=torch.float64)}
    copied = double(already)
    copied["a"].add_(1)
    assert already["a"].tolist() == [1.0, 1.0]
    assert double(LEFT)["a"].dtype == torch.float64


def test_cast_like_takes_each_name_to_its_own_dtype():
    like = {"a": torch.zeros(1, dtype=torch.bfloat16), "b": torch.zeros(1)}
    back = cast_like(double(LEFT), like)
    assert spec(back) == {"a": ((1, 2), torch.bfloat16), "b": ((1,), torch.float32)}


def test_only_keeps_the_trees_own_order_and_passes_over_strangers():
    assert list(only(RIGHT, ["a", "z", "b"])) == ["b", "a"]
    assert only(LEFT, []) == {}


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=4), max_size=5))
def test_norm_agrees_with_numpy_in_any_order_of_names(values):
    tree = {str(i): torch.tensor(v) for i, v in enumerate(values)}
    flat = np.array([x for v in values for x in v], dtype=np.float64)
    assert norm(tree) == pytest.approx(np.linalg.norm(flat), rel=1e-12)
    assert norm(tree) == norm(dict(reversed(tree.items())))


def test_norm_does_not_overflow_in_the_trees_own_precision():
    assert norm({"a": torch.full((4,), 1e30)}) == pytest.approx(2e30)
    assert norm({}) == 0.0


def test_same_wants_names_shapes_dtypes_and_bits():
    one = {"a": torch.tensor([1.0, 2.0])}
    assert same(one, {"a": torch.tensor([1.0, 2.0])})
    assert not same(one, {"b": torch.tensor([1.0, 2.0])})
    assert not same(one, {**one, "b": torch.zeros(1)})
    assert not same(one, {"a": torch.tensor([[1.0, 2.0]])})
    assert not same(one, {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)})
    assert not same(one, {"a": torch.tensor([1.0, math.nextafter(2.0, 3.0) + 1e-6])})
