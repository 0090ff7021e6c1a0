"""TERM: a mean tilted towards clients with a high loss (Li et al., arXiv 2007.01162, section 2.2)."""

import math
from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import Mean, fedavg
from fedit.algorithms.parts.losses import LOSS, READS, Told
from fedit.core.messages import Order, Update
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum


@dataclass(frozen=True, slots=True)
class Tilted:
    """Weights a_k e^(t f_k), however large: the mean's are softmax(t f_k + log a_k), f_k being the losses."""

    tilt: float

    def __call__(self, total: Sum, update: Update, order: Order) -> None:
        level = self.tilt * update.metrics[LOSS]
        total.rise(level)
        total.add(update.payload, order.weights[update.client] * math.exp(level - total.level))


def term(tilt: float) -> Algorithm[Sum]:
    """TERM with tilt t: 0 is FedAvg, bit for bit; above 0 the worst count most, below 0 the best do."""
    local, combine = Told(fedavg().local), Mean(Tilted(tilt))
    return replace(fedavg(), name="term", local=local, combine=combine, reads=READS)
