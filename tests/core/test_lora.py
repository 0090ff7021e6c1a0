"""Factors, their products, and rank cut, filled up and found again."""

import numpy as np
import pytest
import torch

from fedit.core.lora import cut, factored, filled, layers, product_norm, products, rank_of
from fedit.core.tree import same
from tests.factors import LAYERS, ba, factors, near

OTHERS = {"norm.weight": torch.ones(3), "up.bias": torch.zeros(9)}


def test_layers_are_found_by_both_factors_alone():
    alone = {"q.lora_A.weight": torch.ones(1, 1)}  # an A without its B
    assert layers({**factors(0), **OTHERS, **alone}) == {
        layer: (f"{layer}.lora_A.weight", f"{layer}.lora_B.weight") for layer in LAYERS
    }
    assert layers(OTHERS) == {}


def test_layers_with_one_beginning_are_kept_apart():
    names = [f"h.{n}.q.lora_{x}.weight" for n in (1, 10) for x in "AB"]
    assert layers(names).keys() == {"h.1.q", "h.10.q"}
    assert layers(["q.lora_A", "q.lora_B"]) == {"q": ("q.lora_A", "q.lora_B")}


def test_products_are_out_by_in_and_what_numpy_says():
    tree = factors(1)
    found = products({**tree, **OTHERS})
    assert found.keys() == LAYERS.keys()
    for layer, shape in LAYERS.items():
        assert found[layer].shape == shape
        assert found[layer].dtype == torch.float64
        near(found[layer], ba(tree, layer), 1e-15)


def test_the_norm_of_products_is_over_all_layers_and_makes_none_of_them():
    tree = factors(2)
    wanted = np.sqrt(sum(np.square(ba(tree, layer)).sum() for layer in LAYERS))
    assert product_norm(tree) == pytest.approx(wanted, rel=1e-13)
    zero = {name: t * ("lora_A" in name) for name, t in tree.items()}
    assert product_norm(zero) == 0
    assert product_norm(OTHERS) == 0


def test_the_rank_is_the_largest_of_a_layer():
    mixed = {**factors(0, 2), **{n: t for n, t in factors(0, 3).items() if "up" in n}}
    assert (rank_of(factors(0, 1)), rank_of(mixed), rank_of(OTHERS)) == (1, 3, 0)


def test_filling_up_and_cutting_again_is_the_identity_bit_for_bit():
    tree = {**factors(3, 2), **OTHERS}
    full = filled(tree, 4)
    assert {full[n].shape[0] for n in full if "lora_A" in n} == {4}
    assert {full[n].shape[1] for n in full if "lora_B" in n} == {4}
    assert same(cut(full, 2), tree)
    assert same(filled(tree, 2), tree)
    assert same(filled(tree, 1), tree), "filling up never cuts"


def test_filling_up_changes_no_product_and_cutting_keeps_the_first_directions():
    tree = factors(4, 3)
    first = cut(tree, 2)
    for layer in LAYERS:
        near(products(filled(tree, 5))[layer], ba(tree, layer), 1e-15)
        a, b = (tree[f"{layer}.lora_{x}.weight"].numpy() for x in "AB")
        near(products(first)[layer], b[:, :2].astype(float) @ a[:2].astype(float), 1e-15)


def test_filling_up_is_a_copy():
    tree = factors(5)
    before = {name: t.clone() for name, t in tree.items()}
    for tensor in filled(tree, 2).values():
        tensor.add_(1)
    assert same(tree, before)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (4, 4), (1, 6)])
@pytest.mark.parametrize("rank", [1, 2, 3, 4, 7])
def test_factors_of_a_product_err_by_the_singular_values_left_out(shape, rank):
    product = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
    a, b = factored(product, rank)
    assert (a.shape, b.shape) == ((rank, shape[1]), (shape[0], rank))
    left_out = np.linalg.svd(product.numpy(), compute_uv=False)[rank:]
    error = float((product - b @ a).square().sum())
    assert error == pytest.approx(np.square(left_out).sum(), rel=1e-12, abs=1e-24)
    own = min(rank, *shape)
    near(a[:own] @ a[:own].T, np.eye(own), 1e-12)
    assert not a[own:].any(), "beyond a layer's smaller side there are zeros"
    assert not b[:, own:].any()


def test_factors_of_a_product_of_low_rank_are_exact():
    for layer in LAYERS:
        product = products(factors(6, 2))[layer]
        for rank in (2, 3):
            a, b = factored(product, rank)
            near(b @ a, product.numpy(), 1e-14)
        a, b = factored(product, 1)
        assert float((product - b @ a).norm()) > 0.1


def test_cut_to_a_lower_rank_they_are_the_best_of_that_rank():
    product = products(factors(7, 4))["up"]
    (a, b), (best_a, best_b) = factored(product, 4), factored(product, 2)
    near(b[:, :2] @ a[:2], (best_b @ best_a).numpy(), 1e-13)
