"""The planned model: its base, the adapter on it, and the way rows take through it."""

from collections.abc import Iterator

import torch
from torch import nn

from fedit.build.words import make_template
from fedit.config import Plan
from fedit.data.microworld import microworld
from fedit.train.adapters import Adapted, attach
from fedit.train.chat_template import Chat
from fedit.train.forward import Forward, make_forward
from fedit.train.lending import copy_of
from fedit.train.model import Base, load_base
from fedit.train.prompts import Encoder, check_tokenizer


def make_base(plan: Plan, lent: Base | None = None, *, blank: bool = False) -> tuple[Base, Encoder]:
    """The base model and the encoder of examples for it; a `lent` base is not loaded again.

    What is lent stays as it is: an adapter goes on a copy that shares its weights. A `blank` base
    has shapes but no weights.
    """
    how, template = plan.template, make_template(plan.template)  # refused before anything is loaded
    if lent is None:
        base = load_base(plan.model, _corpus(), trains_base=trains_base(plan), blank=blank)
    else:
        base = copy_of(lent, own_weights=trains_base(plan))
    check_tokenizer(base.tokenizer)
    template = template or Chat(base.tokenizer)
    return base, Encoder(base.tokenizer, template, how.max_length, how.train_on_inputs)


def trains_base(plan: Plan) -> bool:
    """Whether the adapter's parameters are the base's own, which then cannot be shared."""
    return plan.adapter.kind in ("full", "bitfit")


def _corpus() -> Iterator[str]:
    """What a model made on the spot, without a tokenizer of its own, learns its tokens from."""
    return (f"{turn.text} {turn.context}" for example in microworld() for turn in example.turns)


def make_adapter(plan: Plan, base: Base) -> Adapted:
    """The base with the planned adapter on it, initialised from the run's seed."""
    return adapt(plan, base.model)


def adapt(plan: Plan, model: nn.Module) -> Adapted:
    """That model with the planned adapter on it."""
    adapted = attach(model, plan.adapter, plan.seed)
    if plan.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        model.enable_input_require_grads()  # type: ignore[operator]
    return adapted


def forward_of(
    plan: Plan, adapted: Adapted, pad: int, device: torch.device, *, blank: bool = False
) -> Forward:
    """How rows are scored by this model, in training and in evaluation; of a blank one, how they would be."""
    return make_forward(
        adapted.model,
        pad,
        device,
        fused=plan.model.kernels == "fused",
        virtual=plan.adapter.kind in ("prefix", "prompt"),
        tried=not blank,
    )
