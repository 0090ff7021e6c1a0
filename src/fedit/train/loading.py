"""A model and its tokenizer from the hub or a folder."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from fedit.config import Model
from fedit.core.errors import InputError, brief


def load_tokenizer(source: str, plan: Model) -> PreTrainedTokenizerBase:
    """The tokenizer of that id or folder. Raises InputError."""
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


def load_model(plan: Model, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The planned base with its weights, all of them found. Raises InputError."""
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


def blank_model(plan: Model, dtype: torch.dtype) -> nn.Module:
    """The planned base on the meta device, with shapes and no weights. Raises InputError."""
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
    reason = brief(error)
    if "trust_remote_code" in str(error):
        reason = "it comes with code of its own, which is not run unasked"
        remedy = "read that code, and if you trust it set model.trust_remote_code: true"
    elif not Path(source).exists():
        remedy = "no such folder is here; of a hub id check the spelling, the network, your login"
    return InputError(f"{key}: no {what} can be loaded from {source!r} ({reason}); {remedy}")
