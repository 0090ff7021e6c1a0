"""The frozen base: any causal LM of the hub or of a folder, or one made on the spot from a config."""

import hashlib
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from fedit.config import Model
from fedit.core.errors import InputError
from fedit.train.loading import blank_model, load_model, load_tokenizer
from fedit.train.making import make_model, make_tokenizer, vocab_size_in

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
        tokenizer = load_tokenizer(plan.tokenizer or plan.base, plan)
        model = blank_model(plan, dtype) if blank else load_model(plan, dtype, device)
    else:
        if plan.tokenizer:
            tokenizer = load_tokenizer(plan.tokenizer, plan)
        else:
            tokenizer = make_tokenizer(corpus, vocab_size_in(plan.config, 2048))
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
