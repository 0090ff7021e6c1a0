"""A model made on the spot from a config, and a tokenizer for it."""

import difflib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from fedit.core.errors import InputError, brief

_END = "<|end|>"


def make_model(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """A randomly initialised model of this architecture, always with the same weights."""
    kind = config["model_type"]
    given = {key: value for key, value in config.items() if key != "model_type"}
    _check_config(kind, given)
    ends = ("bos_token_id", "eos_token_id", "pad_token_id")
    full = {key: getattr(tokenizer, key) for key in ends} | given
    full["vocab_size"] = max(vocab_size_in(config, 0), len(tokenizer))
    try:
        made = AutoConfig.for_model(kind, **full)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = AutoModelForCausalLM.from_config(made)
            return model
    except Exception as error:  # whatever an architecture may say about numbers that do not fit it
        raise InputError(
            f"model.config: no causal LM of model_type {kind!r} can be made from {given} "
            f"({brief(error)}); see the architecture's config in transformers"
        ) from None


def make_tokenizer(corpus: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `corpus`, with an end-of-text token; the same every time."""
    trained = Tokenizer.from_str(_trained(tuple(corpus), vocab_size))
    return PreTrainedTokenizerFast(tokenizer_object=trained, eos_token=_END, pad_token=_END)


@lru_cache(maxsize=2)  # a run makes its base when it begins, and again when it delivers
def _trained(corpus: tuple[str, ...], vocab_size: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    text: str = tokenizer.to_str()
    return text


def vocab_size_in(config: Mapping[str, Any], default: int) -> int:
    """The number of tokens a config names. Raises InputError where it is none."""
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
