"""A client's optimizer: made, its learning rate over the federation, and what it remembers."""

import math
from collections.abc import Mapping

import torch

from fedit.config import Local
from fedit.core.messages import Payload


def make_optimizer(plan: Local, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101) or SGD with the plan's settings.

    `fused` is one call for all tensors; it rounds otherwise than torch's default does.
    """
    decay = plan.weight_decay
    fused = not parameters[0].is_meta  # those of an estimate are only counted
    if plan.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=plan.lr, momentum=plan.momentum, weight_decay=decay, foreach=True
        )
    return torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=decay, fused=fused)


def lr_at(plan: Local, at: float, stride: float, rounds: int) -> float:
    """Learning rate at position `at` (in rounds, 0 ≤ at < rounds) of the federation's schedule.

    Warm-up is linear over `plan.warmup` rounds and reaches the full rate at its last step, `stride`
    rounds long; linear and cosine decay fall to 0 at the end of the last round.
    """
    if at < plan.warmup:
        return plan.lr * min(1.0, (at + stride) / plan.warmup)
    done = (at - plan.warmup) / (rounds - plan.warmup)
    if plan.schedule == "linear":
        return plan.lr * (1 - done)
    if plan.schedule == "cosine":
        return plan.lr * 0.5 * (1 + math.cos(math.pi * done))
    return plan.lr


def memory_of(optimizer: torch.optim.Optimizer, named: Mapping[str, torch.nn.Parameter]) -> Payload:
    """What the optimizer remembers of these parameters: copies on the CPU, by its own key and their name."""
    memory: Payload = {}
    for name, parameter in named.items():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor):
                memory.setdefault(key, {})[name] = value.detach().to("cpu", copy=True)
    return memory


def remember(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.nn.Parameter], memory: Payload
) -> None:
    """Give the optimizer back what `memory_of` told of these parameters."""
    for key, tree in memory.items():
        for name, value in tree.items():
            if name in named:
                place = named[name].device  # fused AdamW counts its steps there
                optimizer.state[named[name]][key] = value.to(place, copy=True)
