"""Held-out loss: sums by group against one row at a time, and a model left as it was."""

import math

import pytest
import torch

from fedit.evaluate.loss import Loss, held_out_loss, overall
from fedit.train.batches import collate, token_losses
from fedit.train.forward import Forward
from fedit.train.model import fingerprint
from tests.zoo import adapted, rows, stirred

CPU = torch.device("cpu")
ROWS = rows((5, 3), (2, 12), (9, 1), (1, 4), (3, 3), (4, 8), (2, 2))
GROUPS = ["b", "a", "b", "c", "a", "a", "c"]


@pytest.fixture(scope="module")
def model():
    one = adapted("llama", "lora")
    one.write(stirred(one.read()))
    return one.model


def measure(model, batch=3, given=ROWS, groups=GROUPS):
    return held_out_loss(Forward(model, 0, CPU), given, groups, batch)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_sums_by_group_are_those_of_single_rows(model, batch):
    wanted = {group: [0.0, 0] for group in "abc"}
    for row, group in zip(ROWS, GROUPS, strict=True):
        with torch.no_grad():
            losses, _ = token_losses(model, collate([row], 0), CPU)
        wanted[group][0] += float(losses.double().sum())
        wanted[group][1] += int(row.learn[1:].sum())
    found = measure(model, batch)
    assert list(found) == ["a", "b", "c"]
    for group, (total, tokens) in wanted.items():
        assert found[group].total == pytest.approx(total, rel=1e-5)
        assert found[group].tokens == tokens


def test_overall_counts_every_token_once(model):
    found = measure(model)
    together = overall(found)
    assert together.tokens == sum(int(row.learn.sum()) for row in ROWS)
    assert together.mean == pytest.approx(overall(measure(model, groups=["all"] * 7)).mean)
    means = [loss.mean for loss in found.values()]
    assert together.mean != pytest.approx(sum(means) / 3), "not the mean of the groups' means"


def test_a_mean_and_its_perplexity():
    assert (Loss(6.0, 3).mean, Loss(6.0, 3).perplexity) == (2.0, pytest.approx(math.exp(2)))
    assert math.isnan(Loss().mean)
    assert math.isinf(Loss(1e6, 1).perplexity)


def test_no_rows_no_losses(model):
    assert measure(model, given=[], groups=[]) == {}


def test_dropout_is_off_and_every_modules_mode_is_put_back():
    one = adapted("gpt2", "lora", resid_pdrop=0.5)
    one.model.train()
    frozen = one.model.get_base_model().transformer.h[0]
    frozen.eval()
    modes = [module.training for module in one.model.modules()]
    assert len(set(modes)) == 2
    first, second = measure(one.model), measure(one.model)
    assert first == second
    assert [module.training for module in one.model.modules()] == modes


def test_nothing_is_learned_or_kept(model):
    before = fingerprint(model)
    measure(model)
    assert fingerprint(model) == before
    assert all(p.grad is None for p in model.parameters())
