"""Token losses of a model: by its own code on padded rows, or by fewer operations where that is the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from fedit.train import attention
from fedit.train.batches import collate, token_losses
from fedit.train.encoded import Encoded
from fedit.train.fused import fuse
from fedit.train.head import HeadLoss


@dataclass(frozen=True)
class Forward:
    """A model ready to score rows.

    `packs`: rows are laid end to end, if none is longer than `window`, beyond which the model's attention
    may not see everything before a token; `plain_head`: see `HeadLoss`.
    """

    model: Any
    pad: int
    device: torch.device
    packs: bool = False
    plain_head: bool = False
    window: float = math.inf

    def losses(self, rows: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """Cross entropy in nats of each supervised token (fp32) and the row it stands in."""
        if not self.packs or max(len(row.ids) for row in rows) > self.window:
            return token_losses(self.model, collate(rows, self.pad), self.device)
        row = pack(rows)
        ids = torch.from_numpy(row.ids).to(self.device)
        before, places = (torch.from_numpy(x).to(self.device) for x in (row.before, row.places))
        targets = ids[before + 1]
        states, logits = _read(self.model, row, ids, before, self.plain_head)
        if self.plain_head:
            weight = self.model.get_output_embeddings().weight
            nats: Tensor = HeadLoss.apply(states, weight, targets)  # type: ignore[no-untyped-call]
            return nats, places
        return nn.functional.cross_entropy(logits.float(), targets, reduction="none"), places


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows laid end to end, all int64.

    `ids` [tokens]; `positions` [tokens] begin anew with each row; `before` [supervised] are the places of
    the tokens before the supervised ones, `places` [supervised] the rows these stand in.
    """

    ids: np.ndarray[Any, Any]
    positions: np.ndarray[Any, Any]
    before: np.ndarray[Any, Any]
    places: np.ndarray[Any, Any]
    lengths: tuple[int, ...]


def pack(rows: Sequence[Encoded]) -> Packed:
    """Lay rows end to end; the first token of a row is never supervised."""
    lengths = tuple(len(row.ids) for row in rows)
    starts = np.cumsum((0, *lengths))[:-1]
    learned = [np.flatnonzero(row.learn[1:]) for row in rows]
    return Packed(
        np.concatenate([row.ids for row in rows]).astype(np.int64),
        np.concatenate([np.arange(length) for length in lengths]),
        np.concatenate([start + own for start, own in zip(starts, learned, strict=True)]),
        np.repeat(np.arange(len(rows)), [len(own) for own in learned]),
        lengths,
    )


def make_forward(
    model: Any,
    pad: int,
    device: torch.device,
    *,
    fused: bool,
    virtual: bool = False,
    tried: bool = True,
) -> Forward:
    """The fastest way through `model` that gives what its own code gives; with `fused` false that code.

    `virtual` says that an adapter puts tokens in front of each row. Every shortcut is tried on the model
    itself, and left where it gives something else; with `tried` false, for a model without weights, it is
    taken wherever the model's form allows it.
    """
    if not fused:
        return Forward(model, pad, device)
    fuse(model, tried=tried)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    # A transformers that cannot tell cannot take it either.
    takes_ours = getattr(base, "_can_set_attn_implementation", bool)()
    if virtual or not takes_ours or base.config._attn_implementation != "sdpa":
        return Forward(model, pad, device)
    base.set_attn_implementation(attention.NAME)
    packs, plain_head = _tried(model, device) if tried else (True, _plain(model))
    if not packs:
        base.set_attn_implementation("sdpa")
        return Forward(model, pad, device)
    return Forward(model, pad, device, packs, plain_head, _window(base.config))


def _window(config: Any) -> float:
    """The shortest span that the config limits attention to; how it does so is the architecture's affair."""
    named = config.get_text_config().to_dict().items()
    spans = [v for k, v in named if ("window" in k or "chunk" in k) and type(v) is int and v > 0]
    return min(spans, default=math.inf)


def _tried(model: Any, device: torch.device) -> tuple[bool, bool]:
    """Whether two rows end to end score as each by itself, and whether the head is a mere product."""
    size = model.get_input_embeddings().weight.shape[0]
    drawn = np.random.default_rng(0).integers(0, size, 14).astype(np.int32)
    rows = [Encoded(ids, np.ones(len(ids), dtype=bool)) for ids in (drawn[:5], drawn[5:])]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            row = pack(rows)
            ids = torch.from_numpy(row.ids).to(device)
            before = torch.from_numpy(row.before).to(device)
            _, together = _read(model, row, ids, before)
            others = torch.cat([(ids[:5] + 1) % size, ids[5:]])
            _, beside_others = _read(model, row, others, before)
            alone = torch.cat(
                [
                    model(input_ids=part[None], use_cache=False).logits[0, :-1]
                    for part in ids.split(row.lengths)
                ]
            )
            loud, logits = _read(model, row, ids, before, louder=1e3)
    except (NotImplementedError, TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return False, False  # an architecture that takes no such call
    finally:
        for module, training in modes:
            module.training = training
    plain = _plain(model) and _close(logits, model.get_output_embeddings()(loud))
    same = _unmoved(together[4:], beside_others[4:])  # of the second row
    return same and _close(together, alone), plain


def _plain(model: Any) -> bool:
    """Whether the head is a frozen linear layer without a bias."""
    head = model.get_output_embeddings()
    return type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad


def _read(
    model: Any, row: Packed, ids: Tensor, before: Tensor, empty: bool = False, louder: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Hidden states [supervised, width] and logits [supervised, vocabulary] of packed rows.

    With `empty` the model's head computes nothing; `louder` multiplies what it is given.
    """
    caught: list[Tensor] = []

    def select(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        states = inputs[0][0, before]
        caught.append(states if louder == 1 else states * louder)
        return (caught[0][None, : 0 if empty else None],)

    with model.get_output_embeddings().register_forward_pre_hook(select):
        logits = model(
            input_ids=ids[None],
            position_ids=torch.from_numpy(row.positions).to(ids.device)[None],
            attention_mask=torch.ones((1, 1, 1, 1), device=ids.device).bool(),  # four: left alone
            use_cache=False,
            lengths=row.lengths,
        ).logits[0]
    return caught[0], logits


def _unmoved(found: Tensor, wanted: Tensor) -> bool:
    """Whether a row scores the same beside another one: to the bit in bf16, where a small leak hides."""
    tolerance = 1e-6 if wanted.dtype == torch.float32 else 0.0
    return bool((found - wanted).abs().max() <= tolerance * wanted.std())


def _close(found: Tensor, wanted: Tensor) -> bool:
    tolerance = 1e-4 if wanted.dtype == torch.float32 else 0.1
    error = (found.float() - wanted.float()).abs().max()
    return bool(error <= tolerance * wanted.float().std())
