"""Memory of a pass that is never made, against one that is."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from fedit.config import IA3, Lora, Plain, Virtual
from fedit.estimating.working import Pass, Working, largest, measured, slots, working_memory
from fedit.train.adapters import attach
from fedit.train.encoded import Encoded
from fedit.train.forward import Forward, make_forward
from tests.tiny import CONFIG

CPU = torch.device("cpu")
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 400}
LLAMA = {**CONFIG, "tie_word_embeddings": True}
ALL = Lora(rank=2, targets="all-linear")


def row(length: int, learned: int) -> Encoded:
    learn = np.zeros(length, dtype=bool)
    learn[length - learned :] = True
    return Encoded(np.arange(length, dtype=np.int32), learn)


ROWS = [row(48, 40), row(20, 9), row(35, 30), row(7, 5)]


def made(config: dict, adapter, **more) -> nn.Module:
    given = {key: value for key, value in {**config, **more}.items() if key != "model_type"}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(config["model_type"], **given, **ends)
    return attach(AutoModelForCausalLM.from_config(config), adapter, 0).model


def real(forward: Forward, *, train: bool, rows=ROWS) -> Working:
    one_pass = Pass(forward)
    one_pass.train(train)
    return measured(one_pass, slots(one_pass), rows)


def plain(model: nn.Module) -> Forward:
    return make_forward(model, 0, CPU, fused=False)


def fused(model: nn.Module, **more) -> Forward:
    return make_forward(model, 0, CPU, fused=True, **more)


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
def test_padded_shapes_alone_take_what_values_take(adapter, train):
    forward = plain(made(GPT2, adapter))
    found, there = working_memory(forward, ROWS, train=train), real(forward, train=train)
    assert found.activations == pytest.approx(there.activations, rel=0.02)
    assert found.peak == pytest.approx(there.peak, rel=0.02)
    learned = sum(int(one.learn.sum()) for one in ROWS)
    assert found.peak - found.activations > learned * GPT2["vocab_size"] * 4


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("config", "adapter"),
    [
        (LLAMA, Lora(rank=2, targets=["q_proj", "v_proj"])),
        (LLAMA, ALL),
        (LLAMA, Plain(kind="full")),
        (GPT2, Lora(rank=2)),
    ],
    ids=["lora", "all-linear", "full", "gpt2"],
)
def test_packed_shapes_alone_take_what_values_take(config, adapter, train):
    model = made(config, adapter)
    with torch.device("meta"):
        blank = made(config, adapter)
    untried, tried = fused(blank, tried=False), fused(model)
    assert tried.packs
    assert (untried.packs, untried.plain_head) == (tried.packs, tried.plain_head)
    found, there = working_memory(untried, ROWS, train=train), real(tried, train=train)
    assert found.activations == pytest.approx(there.activations, rel=0.02)
    assert found.peak == pytest.approx(there.peak, rel=0.02)
    padded = working_memory(plain(made(config, adapter)), ROWS, train=train)
    assert found.activations < padded.activations


@pytest.mark.filterwarnings("ignore:`?gradient_checkpointing")
@pytest.mark.parametrize("way", [plain, fused])
def test_gradient_checkpointing_takes_what_it_takes(way):
    model = made(LLAMA, ALL, num_hidden_layers=4)
    whole = working_memory(way(copy.deepcopy(model)), ROWS, train=True)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    forward = way(model)
    found, there = working_memory(forward, ROWS, train=True), real(forward, train=True)
    assert found.activations == pytest.approx(there.activations, rel=0.02)
    assert found.peak == pytest.approx(there.peak, rel=0.02)
    assert found.peak < 0.7 * whole.peak


@pytest.mark.parametrize("adapter", [Lora(rank=2), Virtual(kind="prompt")], ids=["lora", "prompt"])
def test_nothing_of_a_model_is_changed(adapter):
    model = made(GPT2, adapter)  # its embedding is the output layer as well
    model.eval()
    before, values = slots(model), {name: t.clone() for name, t in slots(model).items()}
    working_memory(plain(model), ROWS, train=True)
    assert not model.training
    for name, tensor in slots(model).items():
        assert tensor is before[name]
        assert tensor.grad is None
        assert torch.equal(tensor, values[name])


def test_activations_grow_with_layers_and_logits_with_supervised_positions():
    shallow = plain(made({**CONFIG, "num_hidden_layers": 2}, Lora(rank=2)))
    deep = plain(made({**CONFIG, "num_hidden_layers": 4}, Lora(rank=2)))
    few = [row(48, 22)] * 4
    one = working_memory(shallow, few, train=True)
    other = working_memory(deep, few, train=True)
    assert 1.6 < other.activations / one.activations < 2.1
    more = working_memory(shallow, [row(48, 44)] * 4, train=True)
    assert more.activations == pytest.approx(one.activations, rel=0.01)
    grown = (more.peak - more.activations) / (one.peak - one.activations)
    assert grown == pytest.approx(2, rel=0.1)


def test_of_logits_only_a_slice_stands_in_memory():
    config = {**CONFIG, "vocab_size": 65536}
    half, whole = (
        working_memory(fused(made(config, Lora(rank=2))), [row(48, n)] * 4, train=True)
        for n in (22, 44)
    )
    assert whole.peak - whole.activations < 1.1 * (half.peak - half.activations)
    logits = working_memory(plain(made(config, Lora(rank=2))), [row(48, 44)] * 4, train=True)
    assert whole.peak < 0.3 * logits.peak


def test_the_largest_padded_batch_has_the_longest_row_and_its_most_learned_neighbours():
    few = [row(50, 10)]
    many = [row(20, 5), row(30, 1), row(10, 9)]
    found = largest([few, many], 2, packs=False)
    assert [len(one.ids) for one in found] == [30, 10]


def test_the_largest_packed_batch_has_the_most_tokens():
    few = [row(45, 10)]
    many = [row(20, 5), row(30, 1), row(10, 9)]
    found = largest([few, many], 2, packs=True)
    assert [len(one.ids) for one in found] == [30, 20]
