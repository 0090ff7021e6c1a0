"""Adapters and trees: what is written is what the model computes with, and nothing else moves."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from fedit.config import IA3, Lora
from fedit.core.errors import BrokenInvariant, InputError
from fedit.core.tree import same, scale
from fedit.train.adapters import AdapterError, attach, linear_names
from fedit.train.model import fingerprint
from tests.zoo import ADAPTERS, ARCHITECTURES, PEFT_KINDS, adapted, logits, made, stirred

# Pairs that cannot be; each is refused with a word, see below.
WITHOUT_BIAS = ("llama", "mistral", "gemma2", "mixtral")
REFUSED = {
    ("mixtral", "dora"),
    ("mixtral", "lora_xs"),
    ("falcon", "prefix"),
    *((kind, "bitfit") for kind in WITHOUT_BIAS),
}
PAIRS = [
    (kind, adapter)
    for kind in ARCHITECTURES
    for adapter in ADAPTERS
    if (kind, adapter) not in REFUSED
]


def rest(one):
    """Copies of all parameters and buffers that are not the adapter's."""
    mine = {id(p) for p in one.parameters.values()}
    everything = [*one.model.named_parameters(), *one.model.named_buffers()]
    return {n: t.detach().clone() for n, t in everything if id(t) not in mine}


@pytest.mark.parametrize(("kind", "adapter"), PAIRS)
def test_reading_and_writing_is_exact_and_touches_nothing_else(kind, adapter):
    one = adapted(kind, adapter)
    base, first, said = rest(one), one.read(), logits(one.model)
    assert first
    assert all(t.dtype == torch.float32 for t in first.values())
    one.write(first)
    assert same(one.read(), first)
    assert torch.equal(logits(one.model), said)
    other = stirred(first, seed=7)
    one.write(other)
    assert same(one.read(), other)
    assert same(rest(one), base)
    assert not torch.equal(logits(one.model), said), "the model does not compute with the adapter"
    one.write(first)
    assert torch.equal(logits(one.model), said)


@pytest.mark.parametrize("adapter", ["lora", "dora", "ia3", "prefix", "prompt", "full"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_every_single_tensor_counts(kind, adapter):
    """One that is written but not computed with (PEFT's silent strict=False) would show here."""
    one = adapted(kind, adapter)
    tree = stirred(one.read(), seed=1)
    one.write(tree)
    said = logits(one.model)
    for name in tree:
        one.write({**tree, name: stirred({name: tree[name]}, seed=2)[name]})
        assert not torch.equal(logits(one.model), said), name


def test_what_is_read_is_a_copy():
    one = adapted("llama", "lora")
    read = one.read()
    for tensor in read.values():
        tensor.add_(1)
    assert not same(one.read(), read)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda t, n: t.pop(n), "missing"),
        (lambda t, n: t.update({n + ".more": torch.zeros(2)}), "without it"),
        (lambda t, n: t.update({n: t[n].T.contiguous()}), r"\(64, 4\), the model's is \(4, 64\)"),
        (lambda t, n: t.update({n.replace("base_model.", ""): t.pop(n)}), "2 tensors differ"),
        (lambda t, n: t.clear(), "28 tensors differ"),
    ],
    ids=["missing", "extra", "misshapen", "renamed", "empty"],
)
def test_a_tree_of_another_adapter_is_refused_whole(harm, said):
    one = adapted("llama", "lora")
    before = one.read()
    tree = stirred(before)
    harm(tree, min(tree))
    with pytest.raises(AdapterError, match=said):
        one.write(tree)
    assert same(one.read(), before), "a part of it was written"
    assert issubclass(AdapterError, BrokenInvariant)


def test_a_write_that_does_not_arrive_is_noticed(monkeypatch):
    one = adapted("llama", "lora")
    tree = stirred(one.read())
    monkeypatch.setattr(torch.nn.Parameter, "copy_", lambda self, other: self)
    with pytest.raises(AdapterError, match="does not hold what was written"):
        one.write(tree)


def test_the_base_is_watched():
    one = adapted("llama", "lora")
    before = one.watch_base()
    one.write(stirred(one.read()))
    logits(one.model)
    assert one.watch_base() == before
    weight = one.model.get_input_embeddings().weight
    with torch.no_grad():
        weight.mul_(1)
    assert one.watch_base() != before
    before = one.watch_base()
    weight.data = weight.data.clone()
    assert one.watch_base() != before
    before = one.watch_base()
    one.model.get_input_embeddings().weight = torch.nn.Parameter(weight.detach().clone())
    assert one.watch_base() != before, "another parameter in its place"


def test_every_parameter_of_the_base_is_watched_and_none_of_the_adapter():
    for adapter in ADAPTERS:
        if ("llama", adapter) in REFUSED:
            continue
        one = adapted("llama", adapter)
        mine = {id(p) for p in one.parameters.values()}
        base = {p.data_ptr() for p in one.model.parameters() if id(p) not in mine}
        assert {place for place, _ in one.watch_base()} == base, adapter


def test_training_mode_reaches_every_module_whoever_left_it():
    one = adapted("llama", "lora")  # in evaluation mode
    one.train()
    assert all(module.training for module in one.model.modules())
    deep = list(one.model.modules())[-1]
    deep.eval()
    one.train()
    assert deep.training


@pytest.mark.parametrize("adapter", PEFT_KINDS)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_names_and_counts_are_pefts(kind, adapter):
    one = adapted(kind, adapter)
    trained, _ = one.model.get_nb_trainable_parameters()
    assert sum(p.numel() for p in one.parameters.values()) == trained
    assert all(p.requires_grad for p in one.parameters.values())
    assert sum(p.requires_grad for p in one.model.parameters()) == len(one.parameters)
    theirs = get_peft_model_state_dict(one.model, save_embedding_layers=False)
    if adapter in ("prefix", "prompt"):  # saved under a name of its own
        assert list(theirs) == ["prompt_embeddings"]
        assert torch.equal(theirs["prompt_embeddings"], *one.read().values())
    else:
        ours = one.read()
        if adapter == "dora":  # PEFT leaves ".weight" out of the magnitude's name
            ours = {n.replace("vector.weight", "vector"): t for n, t in ours.items()}
        assert same(dict(theirs), ours)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "qwen2", "gpt_neox"])
def test_bitfit_trains_every_bias_and_full_everything(kind):
    model = made(kind).model
    every = {name for name, _ in model.named_parameters()}
    assert set(adapted(kind, "bitfit").parameters) == {n for n in every if n.endswith("bias")}
    assert set(adapted(kind, "full").parameters) == every


@pytest.mark.parametrize("adapter", PEFT_KINDS)
def test_the_initial_adapter_depends_on_the_seed_only(adapter):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = adapted("llama", adapter, seed=5).read()
    torch.manual_seed(1)
    made()
    assert torch.equal(torch.get_rng_state(), state)
    attach(made().model, ADAPTERS[adapter], 5)
    assert torch.equal(torch.get_rng_state(), state), "the global generator moved"
    torch.manual_seed(2)
    assert same(adapted("llama", adapter, seed=5).read(), first)
    other = adapted("llama", adapter, seed=6).read()
    assert same(other, first) == (adapter == "ia3")  # which starts from ones


@pytest.mark.parametrize("adapter", ["lora", "rslora", "dora", "ia3", "full", "bitfit"])
def test_an_untrained_adapter_is_the_base(adapter):
    torch.testing.assert_close(
        logits(adapted("gpt2", adapter).model), logits(made("gpt2").model.eval())
    )


def test_scales_are_those_of_the_papers():
    """Δ = α/r · BA for LoRA, α/√r · BA for rsLoRA, on a layer where it can be computed by hand."""
    for adapter, factor in (("lora", 8 / 4), ("rslora", 8 / 4**0.5)):
        one = adapted("llama", adapter)
        tree = stirred(one.read())
        one.write(tree)
        layer = one.model.base_model.model.model.layers[0].self_attn.q_proj
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
        delta = factor * tree[name.format("B")] @ tree[name.format("A")]
        x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(layer(x), x @ (layer.base_layer.weight + delta).T)


# ---- targets, refusals


def test_named_targets_and_no_others():
    one = attach(made().model, Lora(rank=2, targets=["q_proj", "down_proj"]), 0)
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in one.parameters}
    assert layers == {"q_proj", "down_proj"}
    assert len(one.parameters) == 2 * 2 * 2
    plan = IA3(kind="ia3", targets=["k_proj"], feedforward=["down_proj"])
    one = attach(made().model, plan, 0)
    shapes = {name.split(".")[-2]: tuple(p.shape) for name, p in one.parameters.items()}
    assert shapes == {"k_proj": (16, 1), "down_proj": (1, 64)}  # scaled at output, at input


def test_all_linear_means_all_but_the_head():
    one = adapted("llama", "lora")
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in one.parameters}
    assert layers == set(linear_names(made().model)) - {"lm_head"}
    assert linear_names(made("gpt2").model) == ["c_attn", "c_fc", "c_proj", "lm_head"]


@pytest.mark.parametrize(
    "plan",
    [
        Lora(targets=["q_proj", "c_attn"]),
        IA3(kind="ia3", targets=["c_attn"], feedforward=["down_proj"]),
        IA3(kind="ia3", targets=["q_proj"], feedforward=["c_attn"]),
    ],
)
def test_an_unknown_target_is_refused_naming_the_known_ones(plan):
    with pytest.raises(InputError) as caught:
        attach(made().model, plan, 0)
    assert str(caught.value) == (
        "adapter.targets: no linear layer is called 'c_attn'; here are down_proj, gate_proj, k_proj, "
        "lm_head, o_proj, q_proj, up_proj, v_proj"
    )


@pytest.mark.parametrize("kind", WITHOUT_BIAS)
def test_bitfit_without_a_bias_is_refused(kind):
    with pytest.raises(InputError, match=r"adapter\.kind bitfit: .*no bias to train; use lora or"):
        adapted(kind, "bitfit")


@pytest.mark.parametrize(
    ("kind", "adapter", "layer"),
    [
        ("falcon", "prefix", "query_key_value"),
        ("mixtral", "dora", "q_proj"),
        ("mixtral", "lora_xs", "q_proj"),
    ],
)
def test_a_pair_peft_cannot_make_is_refused_before_the_run(kind, adapter, layer):
    with pytest.raises(InputError) as caught:
        adapted(kind, adapter)
    told = str(caught.value)
    assert told.startswith(
        f"adapter.kind {ADAPTERS[adapter].kind}: this {kind.capitalize()}ForCausalLM"
    )
    assert layer in told
    assert "base_layer" not in told, "names of the half-built adapter are none to be used"


# ---- saved, and loaded by plain PEFT


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # Mixtral's
@pytest.mark.parametrize(
    ("kind", "adapter"),
    [(k, a) for k, a in PAIRS if a in PEFT_KINDS and k in ("llama", "gpt2", "gemma2", "mixtral")],
)
def test_plain_peft_loads_it_with_the_same_logits(kind, adapter, tmp_path):
    one = adapted(kind, adapter)
    one.write(stirred(one.read()))
    one.save(tmp_path / "adapter", "some/base")
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    theirs = PeftModel.from_pretrained(made(kind).model, tmp_path / "adapter")
    theirs.eval()
    assert torch.equal(logits(theirs), logits(one.model))
    assert not torch.equal(logits(made(kind).model.eval()), logits(theirs))


@pytest.mark.parametrize("adapter", ["full", "bitfit"])
def test_base_weights_are_saved_by_the_bases_own_names(adapter, tmp_path):
    one = adapted("gpt2", adapter)
    one.write(stirred(one.read()))
    one.save(tmp_path, "some/base")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.safetensors"]
    theirs = made("gpt2").model.eval()
    loaded = theirs.load_state_dict(load_file(tmp_path / "adapter.safetensors"), strict=False)
    assert not loaded.unexpected_keys
    assert torch.equal(logits(theirs), logits(one.model))


def test_the_adapters_config_holds_the_plans_values(tmp_path):
    plan = Lora(
        rank=3, alpha=5.5, dropout=0.25, targets=["v_proj", "q_proj"], rslora=True, dora=True
    )
    attach(made().model, plan, 0).save(tmp_path / "lora", "some/base")
    said = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    wanted = {
        "base_model_name_or_path": "some/base",
        "r": 3,
        "lora_alpha": 5.5,
        "lora_dropout": 0.25,
        "use_rslora": True,
        "use_dora": True,
        "task_type": "CAUSAL_LM",
        "peft_type": "LORA",
    }
    assert {key: said[key] for key in wanted} == wanted
    assert sorted(said["target_modules"]) == ["q_proj", "v_proj"]
    adapted("llama", "prompt").save(tmp_path / "prompt", "some/base")
    said = json.loads((tmp_path / "prompt" / "adapter_config.json").read_text())
    assert (said["peft_type"], said["num_virtual_tokens"]) == ("PROMPT_TUNING", 3)


def test_saving_changes_nothing(tmp_path):
    one = adapted("llama", "lora")
    before, tree = fingerprint(one.model), scale(one.read(), 1.0)
    one.save(tmp_path / "a", "x")
    one.save(tmp_path / "b", "x")
    assert fingerprint(one.model) == before
    assert same(one.read(), tree)
    first, second = (tmp_path / n / "adapter_model.safetensors" for n in "ab")
    assert first.read_bytes() == second.read_bytes()


# ---- precision


@pytest.mark.parametrize("adapter", PEFT_KINDS)
def test_on_a_bf16_base_the_adapter_is_fp32(adapter):
    one = adapted("llama", adapter, precision="bf16")
    assert {p.dtype for p in one.parameters.values()} == {torch.float32}
    mine = {id(p) for p in one.parameters.values()}
    assert {p.dtype for p in one.model.parameters() if id(p) not in mine} == {torch.bfloat16}
    tree = stirred(one.read())  # numbers that bf16 cannot hold
    one.write(tree)
    assert same(one.read(), tree)
    assert logits(one.model).isfinite().all()


def test_an_adapter_on_a_head_that_is_the_embedding_is_refused():
    """Merged, it would change the embedding as well."""
    plan = ADAPTERS["lora"].model_copy(update={"targets": ["q_proj", "lm_head"]})
    with pytest.raises(InputError, match=r"adapter\.targets: lm_head shares its weights"):
        attach(made("llama", tie_word_embeddings=True).model, plan, 0)
    assert attach(made("llama", tie_word_embeddings=False).model, plan, 0).parameters
