"""What methods add to a base's weights: this model alone computes with it, and it comes off again."""

import numpy as np
import pytest
import torch

from fedit.config import Local, Lora
from fedit.core.fitting import Aim
from fedit.core.lora import cut, filled, layers, products
from fedit.core.messages import ADAPTER, BASE, Order
from fedit.core.tree import same
from fedit.train.adapters import AdapterError, attach
from fedit.train.forward import Forward
from fedit.train.lending import copy_of
from fedit.train.model import fingerprint
from fedit.train.sft import Imitation
from fedit.train.trainer import LocalTrainer
from tests.zoo import adapted, logits, made, rows, stirred

S = 2.0  # alpha 8 over rank 4, as in the zoo
ROWS = rows((5, 9), (3, 2), (8, 30), (2, 1))

on_both = pytest.mark.parametrize("kind", ["llama", "gpt2"])


def extra(one, seed: int = 0, by: float = 0.05):
    """Something to add to every layer, [out × in]."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {layer: product.shape for layer, product in products(one.read()).items()}
    return {y: by * torch.randn(shape, generator=rng) for y, shape in shapes.items()}


def by_hand(kind: str, adapter, added):
    """A plain model whose weights hold it all: W + added + s B A, turned where the layer is a Conv1D."""
    model = made(kind).model.eval()
    for layer, product in products(adapter).items():
        module = model.get_submodule(layer.removeprefix("base_model.model."))
        change = S * product.numpy() + added[layer].double().numpy()
        turned = change.T if kind == "gpt2" else change
        weight = module.weight.detach().double().numpy() + turned
        module.weight.data = torch.from_numpy(weight).float()
    return model


@on_both
def test_logits_are_those_of_the_weights_added_by_hand(kind):
    one = adapted(kind, "lora")
    adapter, added = stirred(one.read(), seed=1), extra(one)
    before = logits(one.model)
    one.load({ADAPTER: adapter, BASE: added})
    said, wanted = logits(one.model), logits(by_hand(kind, adapter, added))
    torch.testing.assert_close(said, wanted, rtol=1e-4, atol=2e-5)
    none = {layer: torch.zeros_like(t) for layer, t in added.items()}
    for other in (before, logits(by_hand(kind, adapter, none))):
        assert float((said - other).abs().max()) > 0.01, "the test would see nothing"


@on_both
def test_taking_it_back_restores_every_bit(kind):
    one = adapted(kind, "lora")
    one.write(stirred(one.read(), seed=1))
    said, mark = logits(one.model), fingerprint(one.model)
    one.shift(extra(one))
    assert fingerprint(one.model) != mark
    one.shift({})
    assert fingerprint(one.model) == mark
    assert torch.equal(logits(one.model), said)


@on_both
def test_it_is_added_to_what_was_loaded_and_not_to_the_last_one(kind):
    one, other = adapted(kind, "lora"), adapted(kind, "lora")
    for seed in (1, 2, 3):
        one.shift(extra(one, seed))
    other.shift(extra(other, 3))
    assert fingerprint(one.model) == fingerprint(other.model)


def test_layers_that_are_no_longer_named_go_back():
    one, added = adapted("llama", "lora"), extra(adapted("llama", "lora"))
    layer = min(added)
    weight = one.model.get_submodule(layer).base_layer.weight
    one.shift(added)
    one.shift({y: t for y, t in added.items() if y != layer})
    assert one.model.get_submodule(layer).base_layer.weight is weight
    one.shift(added)
    moved = one.model.get_submodule(layer).base_layer.weight
    assert torch.equal(moved, weight + added[layer])


@on_both
def test_who_shares_the_base_does_not_see_it(kind):
    base = made(kind)
    mark = fingerprint(base.model)
    first, second = (attach(copy_of(base).model, Lora(rank=4, alpha=8), n) for n in (0, 0))
    first.model.eval()
    second.model.eval()
    said = logits(second.model)
    assert torch.equal(logits(first.model), said)
    first.shift(extra(first))
    assert not torch.equal(logits(first.model), said)
    assert torch.equal(logits(second.model), said)
    assert fingerprint(base.model) == mark


def test_a_bf16_base_takes_the_sum_rounded_once():
    one = adapted("llama", "lora", precision="bf16")
    weights = {y: one.model.get_submodule(y).base_layer.weight for y in extra(one)}
    for seed in (1, 2):
        added = extra(one, seed, by=1e-3)
        one.shift(added)
    for layer, loaded in weights.items():
        found = one.model.get_submodule(layer).base_layer.weight
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, (loaded.float() + added[layer]).bfloat16())


def trainer(one, **options):
    plan = Local(steps=2, batch=4, lr=1e-2, **options)
    return LocalTrainer(
        one, {"ann": ROWS}, plan, 1, Forward(one.model, 0, torch.device("cpu")), Imitation()
    )


def order(one, added=None):
    names = frozenset(one.parameters)
    public = {BASE: added} if added else {}
    return Order(0, 0, 0, public, {"ann": 1.0}, names, names)


@on_both
def test_clients_train_on_the_base_they_received_and_leave_it_alone(kind):
    one = adapted(kind, "lora")
    start, added = stirred(one.read(), seed=1), extra(one)
    fitted = trainer(one).fit("ann", order(one, added), start, Aim(), {})
    ready = adapted(kind, "lora")
    ready.shift(added)
    mark = fingerprint(ready.model, ready.parameters.values())
    again = trainer(ready).fit("ann", order(ready, added), start, Aim(), {})
    assert same(fitted.fitted, again.fitted)
    assert fingerprint(one.model, one.parameters.values()) == mark
    plain = trainer(adapted(kind, "lora")).fit("ann", order(one), start, Aim(), {})
    assert not same(fitted.fitted, plain.fitted)
    back = trainer(one).fit("ann", order(one), start, Aim(), {})
    assert same(back.fitted, plain.fitted), "an order without additions takes them back"


def test_a_clients_loss_is_that_of_the_base_it_received():
    one = adapted("llama", "lora")
    start, added = stirred(one.read(), seed=1), extra(one)
    found = trainer(one).loss("ann", order(one, added), start)
    model, total, count = by_hand("llama", start, added), 0.0, 0
    for row in ROWS:
        with torch.no_grad():
            said = model(input_ids=torch.from_numpy(row.ids).long()[None]).logits[0].double()
        nats = -torch.log_softmax(said, -1).numpy()
        learned = np.flatnonzero(row.learn[1:])
        total += nats[learned, row.ids[1:][learned]].sum()
        count += len(learned)
    assert found == pytest.approx(total / count, rel=1e-5)


def test_a_layer_that_is_not_there_is_no_silent_success():
    one = adapted("llama", "lora")
    with pytest.raises((AttributeError, AdapterError)):
        one.shift({"base_model.model.model.layers.9.mlp.up_proj": torch.zeros(64, 32)})


def test_training_with_zeros_beyond_a_rank_is_training_at_that_rank():
    """What mixed ranks rest on: rank 2 filled up to 4, beside a model of rank 2 with the same scale."""
    wide, narrow = (attach(made("llama").model, Lora(rank=r, alpha=S * r), 0) for r in (4, 2))
    small = stirred(narrow.read(), seed=1)
    full = trainer(wide).fit("ann", order(wide), filled(small, 4), Aim(), {}).fitted
    own = trainer(narrow).fit("ann", order(narrow), small, Aim(), {}).fitted
    for near, far in layers(full).values():
        assert not full[near][2:].any()
        assert not full[far][:, 2:].any()
    for name, value in cut(full, 2).items():
        torch.testing.assert_close(value, own[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(value, small[name])
