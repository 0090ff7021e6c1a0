"""RoLoRA: rounds take turns in training B and A (Chen et al., arXiv 2502.01755, Algorithm 1)."""

from dataclasses import replace

from fedit.algorithms.fedavg import fedavg
from fedit.core.lora import A, B
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum


def in_turns(round: int, names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The first, third … round train and send B (`round` counts from 0), the others A.

    The factor that rests is the same everywhere, so the mean of the products is exact in every round.
    """
    part = A if round % 2 else B
    chosen = frozenset(name for name in names if part in name)
    return chosen, chosen


def rolora() -> Algorithm[Sum]:
    """RoLoRA: exact aggregation, half the upload, both factors trained."""
    return replace(fedavg(), name="rolora", scope=in_turns)
