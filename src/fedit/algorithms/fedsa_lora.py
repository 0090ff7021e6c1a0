"""FedSA-LoRA: A is shared, B stays with its client (Guo et al., arXiv 2410.01463, section 4)."""

from dataclasses import replace

from fedit.algorithms.fedavg import fedavg
from fedit.core.lora import A
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum


def share_a(round: int, names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Everything trains; only A travels."""
    return names, frozenset(name for name in names if A in name)


def fedsa_lora() -> Algorithm[Sum]:
    """FedSA-LoRA: the global adapter alone, whose B is still 0, changes nothing; each client has its own."""
    return replace(fedavg(), name="fedsa_lora", scope=share_a)
