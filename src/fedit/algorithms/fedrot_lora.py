"""FedRot-LoRA: factors are turned to the last global ones before they are averaged (arXiv 2602.23638)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedit.algorithms.fedavg import PlainLocal, fedavg
from fedit.core.fitting import Fitter, Work
from fedit.core.gate import not_finite
from fedit.core.lora import layers
from fedit.core.messages import Home, Order
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree


@dataclass(frozen=True, slots=True)
class Turned:
    """Sends (B R, Rᵀ A), whose product is B A, with R orthogonal [r × r].

    R is the polar factor of (1 − λ) I + λ Q, where Q turns both factors nearest to those received:
    ‖QᵀA − A₀‖² + ‖B Q − B₀‖² is least (orthogonal Procrustes). λ in [0, 1]; 0 leaves everything as it is.
    """

    strength: float
    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        work = PlainLocal()(start, order, home, fit)
        if not self.strength or not_finite(work.fit.fitted):  # what diverged is told, not turned
            return work
        fitted = dict(work.fit.fitted)
        for near, far in layers(fitted).values():
            a, b = fitted[near].double(), fitted[far].double()
            turn = self._turn(a @ start[near].double().T + b.T @ start[far].double())
            fitted[near] = (turn.T @ a).to(fitted[near].dtype)
            fitted[far] = (b @ turn).to(fitted[far].dtype)
        return replace(work, fit=replace(work.fit, fitted=fitted))

    def _turn(self, likeness: Tensor) -> Tensor:
        """R from M = A A₀ᵀ + Bᵀ B₀: Q = U Vᵀ of M's decomposition has the largest ⟨Q, M⟩.

        A direction that Q mirrors has length 0 half way, so rounding would choose; it stays as it is.
        """
        nearest = _polar(likeness)
        unit = torch.eye(len(nearest), dtype=nearest.dtype)
        return _polar((1 - self.strength + 1e-9) * unit + self.strength * nearest)


def _polar(matrix: Tensor) -> Tensor:
    u, _, v = torch.linalg.svd(matrix)
    turned: Tensor = u @ v
    return turned


def fedrot_lora(strength: float = 0.5) -> Algorithm[Sum]:
    """FedRot-LoRA with λ = `strength` in [0, 1]; 0 is FedAvg, bit for bit."""
    return replace(fedavg(), name="fedrot_lora", local=Turned(strength))
