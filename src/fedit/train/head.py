"""The output layer and its loss together, a slice of tokens at a time: the logits never stand in memory."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

_SLICE = 2**20  # logits at once: 4 MiB in fp32, which a processor's cache holds


class HeadLoss(Function):
    """Cross entropy in nats [tokens], fp32, of hidden states [tokens, width] under a frozen output layer.

    `weight` is [vocabulary, width], `targets` [tokens]. The gradient of the states is made on the way, as
    both need the same logits.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:  # noqa: D102
        losses = states.new_empty(len(states), dtype=torch.float32)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        size = max(1, _SLICE // len(weight))
        for first in range(0, len(states), size):
            part = slice(first, first + size)
            logs = F.linear(states[part], weight).float().log_softmax(-1)
            chosen = targets[part, None]
            losses[part] = -logs.gather(1, chosen)[:, 0]
            if gradient is not None:
                logs.exp_().scatter_add_(1, chosen, logs.new_full(chosen.shape, -1.0))
                gradient[part] = logs.to(states.dtype) @ weight
        ctx.save_for_backward(*() if gradient is None else (gradient,))
        return losses

    @staticmethod
    def backward(ctx: Any, dlosses: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        (gradient,) = ctx.saved_tensors
        return gradient * dlosses[:, None].to(gradient.dtype), None, None
