"""Batched greedy generation against a plain loop of one prompt at a time."""

from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from fedit.core.errors import InputError
from fedit.evaluate.generate import generate

VOCABULARY, NEW = 40, 8


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        attention_dropout=0.5,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).float()


PROMPTS = [[5, 6, 7], [9], [3, 1, 4, 1, 5, 9, 2, 6], [8, 8], [7, 7, 7, 7]]


def plain(model, prompt, stop_ids, new=NEW):
    """The likeliest token, again and again, without a cache, padding or batches."""
    ids, answer = list(prompt), []
    model.eval()
    for _ in range(new):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in stop_ids:
            break
        ids.append(token)
        answer.append(token)
    return answer


def run(model, prompts=PROMPTS, stop_ids=(0,), batch_size=4, pad_id=0):
    return generate(
        model,
        prompts,
        max_new_tokens=NEW,
        stop_ids=stop_ids,
        pad_id=pad_id,
        batch_size=batch_size,
        device="cpu",
    )


@pytest.mark.parametrize("batch_size", [1, 4])
def test_same_as_one_by_one_in_the_order_given(model, batch_size):
    expected = [plain(model, prompt, {0}) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in expected}) > 1
    assert run(model, batch_size=batch_size) == expected


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers in its old way
@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("kind", [LoraConfig, PrefixTuningConfig, PromptTuningConfig])
def test_adapters_too_give_the_same_in_batches(model, kind):
    sizes = {} if kind is LoraConfig else {"num_virtual_tokens": 3}
    adapted = get_peft_model(deepcopy(model), kind(task_type="CAUSAL_LM", **sizes))
    prompts = [*PROMPTS, [4, 3, 2]]
    assert run(adapted, prompts) == run(adapted, prompts, batch_size=1)


def test_every_stop_id_stops_and_is_cut_off(model):
    free = [plain(model, prompt, set()) for prompt in PROMPTS]
    stops = (free[0][3], free[2][5])
    expected = [plain(model, prompt, set(stops)) for prompt in PROMPTS]
    assert any(len(answer) < NEW for answer in expected)
    assert run(model, stop_ids=stops, pad_id=stops[0]) == expected


def test_modes_are_put_back_one_by_one(model):
    model.train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    answers = run(model)
    assert [module.training for module in model.modules()] == before
    model.eval()
    assert run(model) == answers  # dropout was off both times


def test_the_models_own_generation_settings_do_not_count(model):
    expected = run(model)
    kept = model.generation_config
    model.generation_config = type(kept)(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, num_beams=3, eos_token_id=7
    )
    try:
        assert run(model) == expected
    finally:
        model.generation_config = kept


def test_no_randomness_is_used(model):
    state = torch.random.get_rng_state()
    run(model)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_edges(model):
    assert run(model, prompts=[]) == []
    with pytest.raises(InputError, match="prompt 1 has no tokens"):
        run(model, prompts=[[1], []])


def test_short_prompts_share_larger_batches_within_the_room(model, monkeypatch):
    sizes = []
    real = model.generate

    def counted(input_ids, **options):
        sizes.append(tuple(input_ids.shape))
        return real(input_ids=input_ids, **options)

    monkeypatch.setattr(model, "generate", counted)
    prompts = [[5, 6]] * 9 + [[3, 1, 4, 1, 5, 9]] * 3
    options = {"max_new_tokens": 2, "stop_ids": (0,), "pad_id": 0, "device": "cpu"}
    plain = generate(model, prompts, batch_size=2, **options)
    assert sizes == [(2, 2)] * 4 + [(2, 6)] * 2
    sizes.clear()
    assert generate(model, prompts, batch_size=2, room=16, **options) == plain
    assert sizes == [(8, 2), (4, 6)], "eight rows at most, and 2 · 16 tokens with what is new"
