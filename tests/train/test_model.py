"""Bases: made on the spot, read from folders, and refused with a word on what to do."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from fedit.config import Lora, Model
from fedit.core.errors import InputError
from fedit.train import loading, making
from fedit.train.adapters import attach
from fedit.train.making import make_tokenizer
from fedit.train.model import (
    fingerprint,
    load_base,
    pick_device,
    pick_dtype,
)
from tests.zoo import ARCHITECTURES, CORPUS, VOCABULARY, adapted, logits, made, stirred

LLAMA = {"model_type": "llama", **ARCHITECTURES["llama"]}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A tiny Llama as save_pretrained leaves it."""
    base = made()
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def load(source, **options):
    return load_base(Model(base=str(source), device="cpu", **options), [])


def refusal(source, **options) -> str:
    with pytest.raises(InputError) as caught:
        load(source, **options)
    error = caught.value
    assert error.__suppress_context__ or error.__context__ is None, "its traceback would be shown"
    return str(error)


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# ---- made on the spot


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_is_made_with_the_same_weights_whatever_the_seed(kind):
    torch.manual_seed(1)
    first = made(kind)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = made(kind)
    assert fingerprint(first.model) == fingerprint(second.model)
    torch.manual_seed(1)
    made(kind)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator moved"
    assert first.source == "made"
    assert first.model.config.model_type == kind
    assert first.model.config.eos_token_id == first.tokenizer.eos_token_id
    assert logits(first.model).isfinite().all()


def test_the_plan_is_not_changed_by_making_its_model():
    plan = Model(config=dict(LLAMA), device="cpu")
    load_base(plan, CORPUS)
    assert plan.config == LLAMA


def test_a_made_tokenizer_is_the_same_every_time_gives_texts_back_and_ends_with_its_pad():
    first = make_tokenizer(CORPUS, 290)
    making._trained.cache_clear()
    second = make_tokenizer(CORPUS, 290)
    assert first.get_vocab() == second.get_vocab()
    assert len(first) <= 290
    text = "tea  at\tten — « ünïcode » 🙂\n"
    assert first.decode(first(text)["input_ids"]) == text
    assert first.pad_token_id == first.eos_token_id is not None


def test_the_vocabulary_grows_to_hold_the_tokenizer():
    base = made(vocab_size=10)
    assert base.model.get_input_embeddings().weight.shape[0] == len(base.tokenizer) > 256


def test_ends_of_the_config_win_over_the_tokenizer():
    assert made(bos_token_id=7).model.config.bos_token_id == 7


def test_a_made_model_may_take_a_saved_tokenizer(folder):
    base = load_base(Model(config=LLAMA, tokenizer=str(folder), device="cpu"), [])
    assert base.tokenizer.get_vocab() == made().tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "lama"}, "'lama'"),
        ({"model_type": "t5", "vocab_size": 300}, "'t5'"),
        ({**LLAMA, "hidden_sise": 64}, "did you mean 'hidden_size'"),
        ({**LLAMA, "hidden_size": "wide"}, "'wide'"),
        ({**LLAMA, "num_attention_heads": 5}, "multiple of the number of attention heads"),
        ({**LLAMA, "num_attention_heads": 0}, "'num_attention_heads': 0"),
        ({**LLAMA, "hidden_act": "nono"}, "nono"),
        ({**LLAMA, "vocab_size": "many"}, "model.config.vocab_size: 'many'"),
        ({**LLAMA, "vocab_size": -1}, "model.config.vocab_size: -1"),
        ({**LLAMA, "pad_token_id": 5000}, "'pad_token_id': 5000"),
    ],
)
def test_a_config_that_cannot_be_is_refused(config, said):
    with pytest.raises(InputError, match=r"^model\.config") as caught:
        load_base(Model(config=config, device="cpu"), CORPUS)
    assert said in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_older_names_for_rotary_settings_are_still_read():
    assert made(rope_theta=5000.0).model.config.rope_parameters["rope_theta"] == 5000.0
    assert (
        made("gpt_neox", rotary_pct=0.5).model.config.rope_parameters["partial_rotary_factor"]
        == 0.5
    )


def test_a_model_that_sees_what_follows_is_refused_and_as_a_decoder_taken():
    bert = {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    with pytest.raises(InputError, match=r"model\.config: a BertLMHeadModel .* no causal LM"):
        load_base(Model(config=bert, device="cpu"), CORPUS)
    load_base(Model(config={**bert, "is_decoder": True}, device="cpu"), CORPUS)


# ---- read from a folder


def test_a_saved_model_comes_back_bit_for_bit(folder):
    base = load(folder)
    assert base.source == str(folder)
    assert fingerprint(base.model) == fingerprint(made().model)
    assert base.tokenizer.get_vocab() == made().tokenizer.get_vocab()


def test_shards_come_back_bit_for_bit(folder):
    (folder / "model.safetensors").unlink()
    made().model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert fingerprint(load(folder).model) == fingerprint(made().model)


def test_a_missing_shard_is_refused(folder):
    (folder / "model.safetensors").unlink()
    made().model.save_pretrained(folder, max_shard_size="20KB")
    sorted(folder.glob("model-*.safetensors"))[1].unlink()
    assert "model-00002" in refusal(folder)


def test_a_pickle_is_never_read(folder):
    class Trap:
        def __reduce__(self):
            return exec, (f"open({str(folder / 'sprung')!r}, 'w').close()",)

    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Trap()}, folder / "pytorch_model.bin")
    told = refusal(folder)
    assert not (folder / "sprung").exists()
    assert told.startswith("model.base: ")
    assert repr(str(folder)) in told
    assert "never read: convert them to safetensors" in told


def test_an_adapter_is_no_base(folder, tmp_path):
    adapter = attach(load(folder).model, Lora(rank=2), 0)
    adapter.save(tmp_path / "adapter", str(folder))
    told = refusal(tmp_path / "adapter", tokenizer=str(folder))
    assert "holds an adapter" in told
    assert "fedit export" in told


def test_weights_that_are_not_there_are_not_made_up(folder):
    change(folder / "config.json", num_hidden_layers=3)
    told = refusal(folder)
    assert "no weights for 9 parameters" in told
    assert "model.layers.2." in told


def test_tied_weights_are_not_missed(tmp_path):
    base = made("gpt2")
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    assert fingerprint(load(tmp_path).model) == fingerprint(base.model)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"no tensors at all"), "whole"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:9000]
            ),
            "whole",
        ),
        (lambda f: change(f / "config.json", hidden_size=64), "whole"),
        (lambda f: change(f / "config.json", hidden_size="wide"), "'wide'"),
        (lambda f: (f / "config.json").write_text("{"), "JSON"),
        (lambda f: change(f / "config.json", model_type="t5"), "T5Config"),
        (lambda f: change(f / "config.json", model_type="new"), "`new`"),
    ],
    ids=["garbage", "truncated", "other shapes", "wrong type", "broken JSON", "t5", "unknown"],
)
def test_a_harmed_folder_is_refused(folder, harm, said):
    harm(folder)
    told = refusal(folder)
    assert re.match(r"model\.base: no (causal LM|tokenizer) can be loaded from ", told)
    assert said in told


@pytest.mark.parametrize("source", ["nobody/nothing-here", "no/such/folder", "./none", "a b"])
def test_an_unknown_base_is_refused_offline(source):
    told = refusal(source)
    assert told.startswith(f"model.base: no tokenizer can be loaded from {source!r} (")
    assert told.endswith(
        "no such folder is here; of a hub id check the spelling, the network, your login"
    )


def test_a_folder_without_a_tokenizer_says_where_to_name_one(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "name another in model.tokenizer" in refusal(folder)
    assert refusal(folder, tokenizer="nobody/none").startswith("model.tokenizer: ")


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(folder, tmp_path):
    larger = make_tokenizer(CORPUS, 290)
    larger.add_tokens([f"<{i}>" for i in range(100)])
    larger.pad_token = "<99>"
    larger.save_pretrained(tmp_path / "larger")
    told = refusal(folder, tokenizer=str(tmp_path / "larger"))
    assert told.startswith("model.tokenizer: ")
    assert f"embeddings for {VOCABULARY};" in told


def test_tokens_that_are_never_used_may_be_over(folder, tmp_path):
    larger = make_tokenizer(CORPUS, 290)
    larger.add_tokens([f"<{i}>" for i in range(100)])
    larger.save_pretrained(tmp_path / "larger")
    load(folder, tokenizer=str(tmp_path / "larger"))


# ---- code that comes with a model


@pytest.fixture
def with_code(folder, tmp_path):
    change(
        folder / "config.json",
        model_type="homemade",
        auto_map={"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Net"},
    )
    (folder / "homemade.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    return folder


def test_a_models_own_code_does_not_run_unasked(with_code, tmp_path):
    told = refusal(with_code)
    assert not (tmp_path / "ran").exists()
    assert "set model.trust_remote_code: true" in told


def test_a_tokenizers_own_code_does_not_run_unasked(folder, tmp_path):
    change(
        folder / "tokenizer_config.json",
        tokenizer_class="Words",
        auto_map={"AutoTokenizer": ["homemade.Words", None]},
    )
    (folder / "homemade.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    assert "set model.trust_remote_code: true" in refusal(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("trusted", [False, True])
def test_trust_is_passed_on_as_the_plan_says(folder, monkeypatch, trusted):
    passed = []

    def spy(real):
        def from_pretrained(*args, **options):
            passed.append((options["trust_remote_code"], options.get("use_safetensors")))
            return real(*args, **options)

        return from_pretrained

    for loader in (loading.AutoTokenizer, loading.AutoModelForCausalLM):
        monkeypatch.setattr(loader, "from_pretrained", spy(loader.from_pretrained))
    load(folder, **({"trust_remote_code": True} if trusted else {}))
    assert passed == [(trusted, None), (trusted, True)]


# ---- device, precision, quantised bases


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"model\.device: 'gpu0' cannot .*; use auto or cpu"):
        pick_device("gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"model\.device: 'cuda'"):
            pick_device("cuda")
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_as_planned_made_or_read(folder, precision, dtype):
    for base in (made(precision=precision), load(folder, precision=precision)):
        assert {p.dtype for p in base.model.parameters()} == {dtype}


def test_automatic_precision_follows_the_device(monkeypatch):
    plan, cpu, cuda = Model(base="x"), torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert pick_dtype(plan, cpu, False) == torch.float32
    assert pick_dtype(plan, cuda, False) == torch.bfloat16
    assert pick_dtype(plan, cuda, True) == torch.float32  # base weights train
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert pick_dtype(plan, cuda, False) == torch.float32


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_quantised_base_without_bitsandbytes_names_the_extra(folder, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert refusal(folder, quantise=kind) == (
        f"model.quantise: {kind} needs bitsandbytes; pip install 'fedit[quantised]'"
    )


# ---- fingerprint


def test_a_fingerprint_sees_one_bit_a_name_and_a_dtype():
    base = made().model
    before = fingerprint(base)
    weight = base.model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        kept = weight[3, 5].clone()
        weight[3, 5] = torch.nextafter(kept, torch.tensor(9.0))
        assert fingerprint(base) != before
        weight[3, 5] = kept
    assert fingerprint(base) == before
    base.model.layers[1].mlp.renamed_proj = base.model.layers[1].mlp.up_proj
    del base.model.layers[1].mlp.up_proj
    assert fingerprint(base) != before
    assert fingerprint(made(precision="bf16").model) != before


def test_a_fingerprint_skips_the_adapter_and_only_that():
    one = adapted("llama", "lora")
    skip = list(one.parameters.values())
    before, everything = fingerprint(one.model, skip), fingerprint(one.model)
    one.write(stirred(one.read()))
    assert fingerprint(one.model, skip) == before
    assert fingerprint(one.model) != everything
    with torch.no_grad():
        one.model.get_input_embeddings().weight[0, 0] += 1
    assert fingerprint(one.model, skip) != before


def test_a_folder_moved_is_the_same_base(folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert fingerprint(load(tmp_path / "elsewhere").model) == fingerprint(made().model)
