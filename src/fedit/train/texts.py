"""What a text is to the base model: one vector, for telling how alike two texts are."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from fedit.train.batches import collate
from fedit.train.encoded import Encoded
from fedit.train.forward import Forward


def prompt_of(row: Encoded) -> Encoded:
    """The part of a row before the first token that is learned; all of it where there is none such."""
    learned = np.flatnonzero(row.learn)
    end = int(learned[0]) if len(learned) and learned[0] else len(row.ids)
    return Encoded(row.ids[:end], row.learn[:end])


def text_vectors(forward: Forward, texts: Sequence[Encoded], size: int) -> Tensor:
    """The mean of the base's last hidden states over each text, [texts × width] in fp32 on the CPU.

    The adapter is off, unless it is the base itself (BitFit, full tuning); `size` texts go at a time.
    """
    model, found = forward.model, [torch.empty(0)] * len(texts)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    off = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    with torch.inference_mode(), off:
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            batch = collate([texts[i] for i in chosen], forward.pad)
            states = _last_states(base, batch.ids.to(forward.device), batch.attention)
            for i, row, length in zip(chosen, states, batch.attention.sum(1), strict=True):
                found[i] = row[: int(length)].float().mean(0).cpu()
    for module, training in modes:
        module.training = training
    return torch.stack(found)


def _last_states(base: Any, ids: Tensor, attention: Tensor) -> Tensor:
    """What the output layer is given [rows × length × width]; it computes nothing itself."""
    caught: list[Tensor] = []

    def catch(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        caught.append(inputs[0])
        return (inputs[0][:, :0],)

    with base.get_output_embeddings().register_forward_pre_hook(catch):
        base(input_ids=ids, attention_mask=attention.to(ids.device), use_cache=False)
    return caught[0]
