"""LoRA-XS: a small matrix between two factors that stay what they are (arXiv 2405.17604, equation 3)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear, LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from fedit.core.lora import factored

_WHOLE = 1024  # beyond it a whole decomposition takes too long
_OVER, _PASSES = 16, 8  # columns beside those wanted, and passes, of a sketch of the weight


class Fixed(nn.Module):
    """A factor A [r × in] that never trains: x → x Aᵀ."""

    bias = None
    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """[… × in] → [… × r]."""
        return F.linear(x, self.weight)


class Core(nn.Module):
    """R [r × r], zero at first, before a factor B [out × r] that never trains: x → x Rᵀ Bᵀ.

    To others it is LoRA's factor B with the weight B R, and so it is saved and merged.
    """

    bias = None
    far: Tensor

    def __init__(self, far: Tensor) -> None:
        super().__init__()
        self.register_buffer("far", far, persistent=False)
        self.core = nn.Parameter(far.new_zeros(far.shape[1], far.shape[1]))

    @property
    def weight(self) -> Tensor:
        """B R [out × r]."""
        return self.far @ self.core

    def forward(self, x: Tensor) -> Tensor:
        """[… × r] → [… × out]."""
        return F.linear(F.linear(x, self.core), self.far)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        weight = self.weight
        destination[f"{prefix}weight"] = weight if keep_vars else weight.detach()


def put_cores(model: nn.Module) -> None:
    """Turn every LoRA layer into ΔW = s B R A, B A being the best approximation of W at that rank.

    The factors depend on the frozen weight alone, so they are the same everywhere and need not travel.
    R begins at 0, where the paper draws it from N(0, 10⁻¹⁰): the untrained model is the base, and R has a
    gradient all the same. LoRA-SB (2411.19557), on which Fed-SB (2502.15436) stands, takes the factors
    from a first full gradient instead, which here nobody has before the first round.
    Raises TypeError for what is no linear layer, such as experts in one tensor.
    """
    for layer in [module for module in model.modules() if isinstance(module, LoraLayer)]:
        if not isinstance(layer, Linear):
            raise TypeError(
                "not all of it are linear layers, so name those meant in adapter.targets"
            )
        for name, lora in layer.lora_A.items():
            weight = layer.get_base_layer().weight
            if layer.fan_in_fan_out:  # GPT-2's Conv1D is [in × out]
                weight = weight.T
            a, b = principal(weight.detach(), lora.weight.shape[0])
            layer.lora_A[name], layer.lora_B[name] = Fixed(a), Core(b)


def principal(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A = V_rᵀ and B = U_r Σ_r of the weight, fp32: the same bits on any number of threads.

    Of a weight with more than 1024 rows and columns they come from a sketch (Halko et al., arXiv
    0909.4061), whose error is the larger the less the singular values fall.
    """
    if weight.is_meta:  # a base without weights: only shapes are asked for
        a = weight.new_empty(rank, weight.shape[1], dtype=torch.float32)
        return a, weight.new_empty(weight.shape[0], rank, dtype=torch.float32)
    with _alone():
        wide = weight.to("cpu", torch.float64)
        if rank + _OVER < _WHOLE < min(wide.shape):
            torch.manual_seed(0)
            u, s, v = torch.svd_lowrank(wide, rank + _OVER, _PASSES)
            a, b = v[:, :rank].T, u[:, :rank] * s[:rank]
        else:
            a, b = factored(wide, rank)
        # A decomposition leaves signs open: the largest number of each row of A is above 0.
        signs = a.gather(1, a.abs().argmax(1, keepdim=True)).sign()
        signs[signs == 0] = 1
        a, b = (a * signs).contiguous(), (b * signs.T).contiguous()
    return a.to(weight.device, torch.float32), b.to(weight.device, torch.float32)


@contextmanager
def _alone() -> Iterator[None]:
    """One thread, and a generator that nobody else draws from."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
