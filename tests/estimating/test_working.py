"""Memory of a pass that is never made, against one that is."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from fedit.config import IA3, Lora, Plain, Virtual
from fedit.estimating.working import Shape, Working, _Living, _pass, largest, slots, working_memory
from fedit.train.adapters import attach
from fedit.train.encoded import Encoded
from tests.tiny import CONFIG

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 400}
SHAPE = Shape(4, 48, 90)


def made(config: dict, adapter) -> nn.Module:
    given = {key: value for key, value in config.items() if key != "model_type"}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(config["model_type"], **given, **ends)
    config._attn_implementation = (
        "eager"  # a mask of ones is dropped by others, one of padding is not
    )
    return attach(AutoModelForCausalLM.from_config(config), adapter, 0).model


def real(model: nn.Module, shape: Shape, *, train: bool) -> Working:
    model.train(train)
    with torch.set_grad_enabled(train), _Living() as living:
        return _pass(model, slots(model), shape, living, train)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "adapter",
    [
        Lora(rank=2),
        Lora(rank=2, dropout=0.1),
        IA3(kind="ia3", targets=["c_attn"], feedforward=[]),
        Virtual(kind="prompt"),
        Virtual(kind="prefix"),
        Plain(kind="full"),
    ],
    ids=["lora", "dropout", "ia3", "prompt", "prefix", "full"],
)
def test_shapes_alone_take_what_values_take(adapter, train):
    model = made(GPT2, adapter)
    found, there = working_memory(model, SHAPE, train=train), real(model, SHAPE, train=train)
    assert found.activations == pytest.approx(there.activations, rel=0.02)
    assert found.peak == pytest.approx(there.peak, rel=0.02)
    assert found.peak - found.activations > SHAPE.supervised * GPT2["vocab_size"] * 4


@pytest.mark.parametrize("adapter", [Lora(rank=2), Virtual(kind="prompt")], ids=["lora", "prompt"])
def test_nothing_of_a_model_is_changed(adapter):
    model = made(GPT2, adapter)  # its embedding is the output layer as well
    model.eval()
    before, values = slots(model), {name: t.clone() for name, t in slots(model).items()}
    working_memory(model, SHAPE, train=True)
    assert not model.training
    for name, tensor in slots(model).items():
        assert tensor is before[name]
        assert tensor.grad is None
        assert torch.equal(tensor, values[name])


def test_activations_grow_with_layers_and_logits_with_supervised_positions():
    shallow = made({**CONFIG, "num_hidden_layers": 2}, Lora(rank=2))
    deep = made({**CONFIG, "num_hidden_layers": 4}, Lora(rank=2))
    one = working_memory(shallow, SHAPE, train=True)
    other = working_memory(deep, SHAPE, train=True)
    assert 1.6 < other.activations / one.activations < 2.1
    more = working_memory(shallow, Shape(4, 48, 180), train=True)
    assert more.activations == one.activations
    grown = (more.peak - more.activations) / (one.peak - one.activations)
    assert grown == pytest.approx(2, rel=0.1)


def test_the_largest_batch_is_of_one_group_with_its_most_learned_rows():
    def row(length: int, learned: int) -> Encoded:
        learn = np.zeros(length, dtype=bool)
        learn[length - learned :] = True
        return Encoded(np.zeros(length, dtype=np.int32), learn)

    few = [row(50, 10)]
    many = [row(20, 5), row(30, 1), row(10, 9)]
    assert largest([few, many], 2) == Shape(2, 30, 14)
