"""LoRA layers with factors of each client's own, for tokens of several clients end to end.

y = x Wᵀ + b + s (x A_kᵀ) B_kᵀ for the tokens x of client k, with frozen W and b (arXiv 2106.09685). A is
[clients × r·in] and B [clients × out·r], fp32 as their gradients; products run in the precision of x.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F


class SlicedLora(Function):
    """By a product for each client, whose tokens end at `ends`: least arithmetic, as a CPU likes it."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        ends: Sequence[int],
        s: float,
    ) -> Tensor:
        flat, (out, wide), clients = x.reshape(-1, x.shape[-1]), weight.shape, len(a)
        near = a.reshape(clients, -1, wide).to(x.dtype)
        far = (b.reshape(clients, out, -1) * s).to(x.dtype)
        y, h = F.linear(flat, weight, bias), flat.new_empty(len(flat), near.shape[1])
        for own, n, f in zip(_slices(ends), near, far, strict=True):
            torch.mm(flat[own], n.T, out=h[own])
            y[own].addmm_(h[own], f.T)
        ctx.save_for_backward(flat, weight, h, near, far)
        ctx.ends, ctx.scale = ends, s
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight, h, near, far = ctx.saved_tensors
        flat, places = dy.reshape(-1, dy.shape[-1]), list(_slices(ctx.ends))
        dx = flat @ weight if ctx.needs_input_grad[0] else None
        da, db = (t.new_empty(t.shape, dtype=torch.float32) for t in (near, far))
        for own, n, f, to_a, to_b in zip(places, near, far, da, db, strict=True):
            dh = flat[own] @ f
            if dx is not None:
                dx[own].addmm_(dh, n)
            torch.mm(dh.float().T, x[own].float(), out=to_a)
            torch.mm(flat[own].float().T, h[own].float(), out=to_b)
        clients = len(places)
        da, db = da.view(clients, -1), db.mul_(ctx.scale).view(clients, -1)
        dx = None if dx is None else dx.view(*dy.shape[:-1], -1)
        needs = ctx.needs_input_grad
        return dx, None, None, da if needs[3] else None, db if needs[4] else None, None, None


def _slices(ends: Sequence[int]) -> Iterator[slice]:
    return (slice(first, end) for first, end in pairwise((0, *ends)))


class MaskedLora(Function):
    """By a mask [tokens × clients], 1 where a token is the client's, else 0.

    All clients' thin products are one, of rank r · clients, whose other columns the mask takes away.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        mask: Tensor,
        s: float,
    ) -> Tensor:
        flat, (out, wide), clients = x.reshape(-1, x.shape[-1]), weight.shape, len(a)
        near = a.reshape(-1, wide).to(x.dtype)
        far = (b.view(clients, out, -1) * s).transpose(1, 2).reshape(-1, out).to(x.dtype)
        h = _masked(flat @ near.T, mask)
        y = F.linear(flat, weight, bias).addmm_(h, far)
        ctx.save_for_backward(flat, weight, h, near, far, mask)
        ctx.scale = s
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight, h, near, far, mask = ctx.saved_tensors
        flat, clients = dy.reshape(-1, dy.shape[-1]), mask.shape[1]
        dh = _masked(flat @ far.T, mask)
        dx = da = db = None
        if ctx.needs_input_grad[0]:
            dx = (flat @ weight).addmm_(dh, near).view(*dy.shape[:-1], -1)
        if ctx.needs_input_grad[3]:
            da = (dh.float().T @ x.float()).view(clients, -1)
        if ctx.needs_input_grad[4]:
            db = (h.float().T @ flat.float()).view(clients, -1, flat.shape[1])
            db = db.transpose(1, 2).reshape(clients, -1) * ctx.scale
        return dx, None, None, da, db, None, None


def _masked(h: Tensor, mask: Tensor) -> Tensor:
    """h [tokens × clients·r], in place, 0 but for the columns of each token's client."""
    h.view(*mask.shape, -1).mul_(mask.to(h.dtype).unsqueeze(-1))
    return h
