"""The frozen base: any causal LM of the hub or of a folder, or one made on the spot from a config."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on its device, its tokenizer, and where it came from."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    source: str
    device: torch.device


def load_base(plan: Model, corpus: Iterable[str], *, trains_base: bool = False) -> Base:
    """Load or make the base; safetensors only, remote code only if the plan says so.

    `corpus` trains the tokenizer of a model made on the spot when the plan names none; such a model has
    the same random weights whatever the run's seed. With `trains_base` (BitFit, full tuning) "auto"
    precision is fp32. Raises InputError naming the key, the value and the remedy.
    """
    device = pick_device(plan.device)
    dtype = pick_dtype(plan, device, trains_base)
    if plan.config is None:
        assert plan.base is not None  # the plan has exactly one of the two
        tokenizer = _load_tokenizer(plan.tokenizer or plan.base, plan)
        return Base(_load_model(plan, dtype, device), tokenizer, plan.base, device)
    config = dict(plan.config)
    if plan.tokenizer:
        tokenizer = _load_tokenizer(plan.tokenizer, plan)
    else:
        tokenizer = make_tokenizer(corpus, int(config.get("vocab_size", 2048)))
    model = make_model(config, tokenizer).to(device=device, dtype=dtype)
    return Base(model, tokenizer, "made", device)


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


def make_model(config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """A randomly initialised model of this architecture, always with the same weights."""
    kind = config.pop("model_type")
    config["vocab_size"] = max(int(config.get("vocab_size", 0)), len(tokenizer))
    try:
        made = AutoConfig.for_model(
            kind,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **config,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = AutoModelForCausalLM.from_config(made)
            return model
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"model.config: no causal LM of model_type {kind!r} can be made from {config} "
            f"({str(error)[:200]}); see the architecture's config in transformers"
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


def _load_tokenizer(source: str, plan: Model) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=plan.revision, trust_remote_code=plan.trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unloadable(
            "model.tokenizer" if plan.tokenizer else "model.base", source, error
        ) from None
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _load_model(plan: Model, dtype: torch.dtype, device: torch.device) -> nn.Module:
    assert plan.base is not None
    options: dict[str, Any] = {"dtype": dtype}
    if plan.quantise:
        options = _quantised(plan.quantise, dtype) | {"device_map": {"": device}}
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            plan.base,
            revision=plan.revision,
            trust_remote_code=plan.trust_remote_code,
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unloadable("model.base", plan.base, error) from None
    return model if plan.quantise else model.to(device)


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


def _unloadable(key: str, source: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:300]
    return InputError(
        f"{key}: {source!r} is neither a folder with a model in safetensors nor a hub id that can be "
        f"reached ({reason}); check the spelling, the network, and that it is a causal LM"
    )
