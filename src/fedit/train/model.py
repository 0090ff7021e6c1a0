"""The frozen base: any causal LM of the hub or of a folder, or one made on the spot from a config."""

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from fedit.config import Model
from fedit.core.errors import InputError

EMBEDDED = {"microworld": Path(__file__).with_name("microworld")}
"""Bases that come with fedit, by name; docs/microworld.md says how this one was made."""


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on its device, its tokenizer, and where it came from."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    source: str
    device: torch.device


def load_base(
    plan: Model, corpus: Iterable[str], *, trains_base: bool = False, blank: bool = False
) -> Base:
    """Load or make the base; safetensors only, remote code only if the plan says so.

    `corpus` trains the tokenizer of a model made on the spot when the plan names none; such a model has
    the same random weights whatever the run's seed. With `trains_base` (BitFit, full tuning) "auto"
    precision is fp32. A `blank` base has shapes on the meta device, and no weights are read for it.
    Raises InputError naming the key, the value and the remedy.
    """
    if plan.base in EMBEDDED:
        plan = plan.model_copy(update={"base": str(EMBEDDED[plan.base]), "revision": None})
    device = pick_device(plan.device)
    dtype = pick_dtype(plan, device, trains_base)
    if plan.config is None:
        assert plan.base is not None  # the plan has exactly one of the two
        tokenizer = _load_tokenizer(plan.tokenizer or plan.base, plan)
        model = _blank_model(plan, dtype) if blank else _load_model(plan, dtype, device)
    else:
        if plan.tokenizer:
            tokenizer = _load_tokenizer(plan.tokenizer, plan)
        else:
            tokenizer = make_tokenizer(corpus, _vocab_size(plan.config, 2048))
        with torch.device("meta") if blank else nullcontext():
            model = make_model(plan.config, tokenizer)
        model = model.to(device=None if blank else device, dtype=dtype)
    source = plan.base or "made"
    _check_vocabulary(model, tokenizer, plan.tokenizer or source)
    if not blank:
        _check_causal(model, source, device)
    return Base(model, tokenizer, source, device)


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" takes CUDA, then Apple's, then the CPU."""
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"model.device: {name!r} cannot be used here ({reason}); use auto or cpu"
        ) from None
    return device


def pick_dtype(plan: Model, device: torch.device, trains_base: bool) -> torch.dtype:
    """fp32 on a CPU and wherever base weights train, bf16 on a GPU that has it, unless the plan says."""
    if plan.precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[plan.precision]
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported() and not trains_base
    return torch.bfloat16 if bf16 else torch.float32


def fingerprint(model: nn.Module, skip: Iterable[nn.Parameter] = ()) -> str:
    """sha256 over names, dtypes and bytes of all parameters but `skip`: equal means the same base."""
    digest, skipped = hashlib.sha256(), {id(parameter) for parameter in skip}
    for name, tensor in model.named_parameters():
        if id(tensor) in skipped:
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()


def make_model(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """A randomly initialised model of this architecture, always with the same weights."""
    kind = config["model_type"]
    given = {key: value for key, value in config.items() if key != "model_type"}
    _check_config(kind, given)
    ends = ("bos_token_id", "eos_token_id", "pad_token_id")
    full = {key: getattr(tokenizer, key) for key in ends} | given
    full["vocab_size"] = max(_vocab_size(config, 0), len(tokenizer))
    try:
        made = AutoConfig.for_model(kind, **full)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = AutoModelForCausalLM.from_config(made)
            return model
    except Exception as error:  # whatever an architecture may say about numbers that do not fit it
        raise InputError(
            f"model.config: no causal LM of model_type {kind!r} can be made from {given} "
            f"({_reason(error)}); see the architecture's config in transformers"
        ) from None


def make_tokenizer(corpus: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `corpus`, with an end-of-text token; the same every time."""
    end = "<|end|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end)


def _vocab_size(config: Mapping[str, Any], default: int) -> int:
    size = config.get("vocab_size", default)
    if type(size) is not int or size < 0:
        raise InputError(f"model.config.vocab_size: {size!r} is no number of tokens; e.g. 1024")
    return size


def _check_config(kind: str, given: Mapping[str, Any]) -> None:
    """Refuse a key the architecture does not know: transformers would keep its own default silently."""
    try:
        usual = AutoConfig.for_model(kind)
    except Exception:  # an unknown kind: make_model tells
        return
    for key in given:
        # rope_theta, rotary_pct … are read by transformers 5, which keeps them under another name
        if not hasattr(usual, key) and not key.startswith(("rope_", "rotary_", "partial_rotary_")):
            named = {*usual.to_dict(), *usual.attribute_map}
            known = sorted(name for name in named if not name.startswith("_"))
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise InputError(f"model.config: a {kind} has no {key!r}; {hint}")


def _check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Refuse a tokenizer whose tokens the model has no embedding for; a few unused ones may be over."""
    rows = model.get_input_embeddings().weight.shape[0]
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    needed = max([tokenizer.vocab_size, *(number + 1 for number in ends if number is not None)])
    if needed > rows:
        raise InputError(
            f"model.tokenizer: {source!r} needs {needed} tokens, the model has embeddings for {rows}; "
            "name the tokenizer that the model was made with"
        )


def _check_causal(model: Any, source: str, device: torch.device) -> None:
    """Refuse BERT and its like, which transformers loads as causal LMs though they see what follows."""
    if getattr(model.config, "is_decoder", True) is not False:
        return  # says False of GPT-NeoX too, so the model itself is asked
    ids = torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6]], device=device)  # one beginning, two endings
    was_training = model.training
    model.eval()
    with torch.no_grad():
        first, other = model(input_ids=ids).logits[:, 0].float()
    model.train(was_training)
    if not torch.allclose(first, other, rtol=1e-3, atol=1e-3 * float(first.std())):
        raise InputError(
            f"model.{'config' if source == 'made' else 'base'}: a {type(model).__name__} with "
            "is_decoder false is no causal LM, its tokens see the ones after them; take a model made to "
            "go on with a text, such as a Llama, Qwen or GPT"
        )


def _load_tokenizer(source: str, plan: Model) -> PreTrainedTokenizerBase:
    key = "model.tokenizer" if plan.tokenizer else "model.base"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=plan.revision, trust_remote_code=plan.trust_remote_code
        )
    except Exception as error:  # the files are the user's: anything may be wrong with them
        remedy = "give the files of the tokenizer, or name another in model.tokenizer"
        raise _unloadable(key, "tokenizer", source, error, remedy) from None
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _load_model(plan: Model, dtype: torch.dtype, device: torch.device) -> nn.Module:
    assert plan.base is not None
    options: dict[str, Any] = {"dtype": dtype}
    if plan.quantise:
        options = _quantised(plan.quantise, dtype) | {"device_map": {"": device}}
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            plan.base,
            revision=plan.revision,
            trust_remote_code=plan.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # the files are the user's: anything may be wrong with them
        remedy = "check that its files are whole and belong to a causal LM"
        if any(Path(plan.base).glob("*.bin")):
            remedy = "pickled weights (*.bin) are never read: convert them to safetensors"
        raise _unloadable("model.base", "causal LM", plan.base, error, remedy) from None
    if missing := sorted(found["missing_keys"]):
        raise InputError(
            f"model.base: {plan.base!r} has no weights for {len(missing)} parameters of a "
            f"{type(model).__name__}, first {missing[0]}, and random ones would take their place; check "
            "that the files are whole and belong to a causal LM"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(
            f"model.base: {plan.base!r} holds an adapter; merge it into its base first (fedit export for "
            "one of fedit's runs), or name the base"
        )
    loaded: nn.Module = model
    return loaded if plan.quantise else loaded.to(device)


def _blank_model(plan: Model, dtype: torch.dtype) -> nn.Module:
    assert plan.base is not None
    options = {"trust_remote_code": plan.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(plan.base, revision=plan.revision, **options)
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config, **options)
    except Exception as error:  # the files are the user's: anything may be wrong with them
        remedy = "check that its files are whole and belong to a causal LM"
        raise _unloadable("model.base", "causal LM", plan.base, error, remedy) from None
    return model.to(dtype=dtype)


def _quantised(kind: str, dtype: torch.dtype) -> dict[str, Any]:
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError:
        raise InputError(
            f"model.quantise: {kind} needs bitsandbytes; pip install 'fedit[quantised]'"
        ) from None
    if kind == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "dtype": dtype}
    four = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": four, "dtype": dtype}


def _unloadable(key: str, what: str, source: str, error: Exception, remedy: str) -> InputError:
    reason = _reason(error)
    if "trust_remote_code" in str(error):
        reason = "it comes with code of its own, which is not run unasked"
        remedy = "read that code, and if you trust it set model.trust_remote_code: true"
    elif not Path(source).exists():
        remedy = "no such folder is here; of a hub id check the spelling, the network, your login"
    return InputError(f"{key}: no {what} can be loaded from {source!r} ({reason}); {remedy}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'…' * (len(text) > 300)}"
