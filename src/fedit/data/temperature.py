"""Temperature sampling: rare labels are drawn more often than they occur (arXiv 1911.02116, section 3.1)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def tempered(labels: Sequence[str], t: float) -> NDArray[np.float64]:
    """The chance of each row to be drawn, 1 in all: q_l ∝ p_l^(1/t), equal among the rows of a label.

    p_l is the share of rows with label l, and t > 0: 1 leaves it, beyond it labels come nearer to each
    other, below it the frequent ones gain.
    """
    counts = Counter(labels)
    logs = np.log([counts[label] / len(labels) for label in labels]) / t
    powers = np.exp(logs - logs.max(initial=-np.inf))  # however small t is
    each = powers / np.array([counts[label] for label in labels], dtype=np.float64)
    found: NDArray[np.float64] = each / each.sum()
    return found
