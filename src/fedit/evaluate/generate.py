"""Greedy generation in batches, the same as one prompt at a time."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import GenerationConfig

from fedit.core.errors import InputError


@torch.no_grad()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
    batch_size: int,
    device: torch.device | str,
    room: int = 0,
) -> list[list[int]]:
    """Each prompt's continuation: at most `max_new_tokens` ids, those before the first stop id.

    `model` is a causal LM of transformers or PEFT on `device`; `prompts` are token ids, answered in
    the order given, but batched by length and padded on the left with `pad_id`. A batch holds
    `batch_size` prompts, and up to four times as many short ones: as long as, with what is new, they
    take no more than `batch_size` rows of `room` tokens.
    Always the likeliest token: sampling, beams and penalties of the model's own generation settings
    are switched off. Every module's train or eval mode is put back.
    Raises InputError for an empty prompt.
    """
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(
                f"generation: prompt {number} has no tokens to go on from; give it a text, or use "
                "a template that writes some"
            )
    config = settings(max_new_tokens, stop_ids, pad_id)
    answers: list[list[int]] = [[] for _ in prompts]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        lengths = [len(prompt) + max_new_tokens for prompt in prompts]
        for chosen in _batches(lengths, batch_size, _takes_padding(model), room):
            ids, mask = _padded([prompts[i] for i in chosen], pad_id)  # [rows, longest]
            whole = model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config
            )
            for i, row in zip(chosen, whole[:, ids.shape[1] :].tolist(), strict=True):
                answers[i] = _until_stop(row, stop_ids)
    finally:
        for module, training in modes:
            module.training = training
    return answers


def settings(
    max_new_tokens: int, stop_ids: Sequence[int], pad_id: int, temperature: float = 0.0
) -> GenerationConfig:
    """The likeliest token, or at a temperature > 0 a drawn one, and no rule besides.

    Everything is said, because what is left open is taken from the model's own settings.
    """
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        min_length=0,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
        do_sample=temperature > 0,
        num_beams=1,
        temperature=temperature or 1.0,
        top_k=0 if temperature else 50,
        top_p=1.0,
        typical_p=1.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
    )


def _takes_padding(model: Any) -> bool:
    """Whether padding on the left is harmless: PEFT puts soft prompts before it, with a gap after."""
    config = getattr(model, "active_peft_config", None)
    return config is None or not config.is_prompt_learning


def _batches(
    lengths: Sequence[int], batch_size: int, padding: bool, room: int
) -> Iterator[list[int]]:
    """Places of rows of like length, or of the same length where there may be no padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for _, places in groupby(order, key=lambda i: 0 if padding else lengths[i]):
        batch: list[int] = []
        for place in places:
            small = (len(batch) + 1) * lengths[place] <= batch_size * room
            if len(batch) >= (4 * batch_size if small else batch_size):
                yield batch
                batch = []
            batch.append(place)
        yield batch


def _padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows])
    lengths = torch.tensor([[len(row)] for row in rows])
    return ids, (torch.arange(longest) >= longest - lengths).long()


def _until_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    return ids[: next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))]
