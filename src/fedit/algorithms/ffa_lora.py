"""FFA-LoRA: the factor A stays what it was at the start (Sun et al., arXiv 2403.12313, section 4)."""

from dataclasses import replace

from fedit.algorithms.fedavg import fedavg
from fedit.core.lora import B
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum


def only_b(round: int, names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Only B trains, and only B travels: the mean of the products is the product with the mean."""
    chosen = frozenset(name for name in names if B in name)
    return chosen, chosen


def ffa_lora() -> Algorithm[Sum]:
    """FFA-LoRA: exact aggregation, half the upload."""
    return replace(fedavg(), name="ffa_lora", scope=only_b)
