"""Attention over examples laid end to end: no padding anywhere, and nobody sees a neighbour."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "fedit"
"""What this attention is called in a model's config."""

_CHANGES_SCORES = ("position_bias", "softcap", "s_aux", "head_mask")  # known of some architectures


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    lengths: Sequence[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each of `lengths` tokens where they came with the call, else torch's own.

    query is [1, heads, tokens, width]; key and value may have fewer heads, each for a group of the
    query's. Returns [1, tokens, heads, width].
    """
    if lengths is None:
        usual: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return usual
    if strange := [name for name in _CHANGES_SCORES if options.get(name) is not None]:
        raise NotImplementedError(f"packed attention with {', '.join(strange)}")
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    if query.device.type == "cpu" and not options.get("dropout"):
        found = Causal.apply(query[0], key[0], value[0], lengths, scale)  # type: ignore[no-untyped-call]
        return found.unsqueeze(0), None
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    parts = [
        F.scaled_dot_product_attention(
            query[:, :, own],
            key[:, :, own],
            value[:, :, own],
            is_causal=True,
            dropout_p=options.get("dropout", 0.0),
            scale=scale,
        )
        for own in _examples(lengths)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


_BLOCK = 128
"""Queries at once: what comes after the last of them is left out, and a block's scores fit the cache."""


class Causal(Function):
    """softmax(s Q Kᵀ + causal mask) V of each example, with Q [heads, tokens, width] (arXiv 1706.03762).

    Plain matrix products, which on a CPU are faster than its flash attention at the lengths of
    instructions; probabilities are computed again in the backward pass, so that none are kept.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float
    ) -> Tensor:
        q = q * scale
        ctx.save_for_backward(q, k, v)
        ctx.lengths, ctx.scale = lengths, scale
        heads, tokens, width = q.shape
        out = q.new_empty(tokens, heads, width)
        for own, seen, _ in _blocks(lengths):
            found = _probabilities(q[:, own], k[:, seen]) @ v[:, seen]
            out[own] = found.view(heads, -1, width).transpose(0, 1)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        q, k, v = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        (heads, _, width), groups = q.shape, k.shape[0]
        for own, seen, whole in reversed(list(_blocks(ctx.lengths))):
            p = _probabilities(q[:, own], k[:, seen])
            do = dout[own].transpose(0, 1).reshape(groups, -1, width)
            dp = do @ v[:, seen].transpose(1, 2)
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dq[:, own] = (ds @ k[:, seen]).view(heads, -1, width)
            mine = q[:, own].reshape(groups, -1, width)
            if whole:  # the first of its example to come
                dk[:, seen], dv[:, seen] = ds.transpose(1, 2) @ mine, p.transpose(1, 2) @ do
            else:
                dk[:, seen] += ds.transpose(1, 2) @ mine
                dv[:, seen] += p.transpose(1, 2) @ do
        return dq.mul_(ctx.scale), dk, dv, None, None


def _probabilities(q: Tensor, k: Tensor) -> Tensor:
    """[key heads, group · queries, keys]: the query heads of a group stand below each other.

    The queries are the last of the keys' tokens.
    """
    (heads, length, width), (groups, seen, _) = q.shape, k.shape
    scores = q.reshape(groups, -1, width) @ k.transpose(1, 2)
    later = torch.full((length, length), -torch.inf, dtype=q.dtype).triu_(1)
    scores.view(groups, heads // groups, length, seen)[..., seen - length :].add_(later)
    return scores.softmax(-1)


def _examples(lengths: Sequence[int]) -> Iterator[slice]:
    """Where each example stands in the row."""
    first = 0
    for length in lengths:
        yield slice(first, first + length)
        first += length


def _blocks(lengths: Sequence[int]) -> Iterator[tuple[slice, slice, bool]]:
    """Queries, the keys that they see, and whether these are all of the example's."""
    for own in _examples(lengths):
        for first in range(own.start, own.stop, _BLOCK):
            end = min(first + _BLOCK, own.stop)
            yield slice(first, end), slice(own.start, end), end == own.stop
