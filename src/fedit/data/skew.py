"""How far the clients' label distributions and sizes are from equal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedit.core.errors import InputError

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """How far one client's label distribution p is from the global q.

    `jensen_shannon` is the divergence in bits, `hellinger` and `earth_mover` are distances, all
    in [0, 1]; `effective_categories` is exp of the entropy of p, from 1 to the number of labels.
    `earth_mover` has unit ground distance, so it is Σ|p − q| / 2, the total variation (half the
    measure of Zhao et al., arXiv 1806.00582, section 3.2).
    """

    jensen_shannon: float
    hellinger: float
    earth_mover: float
    effective_categories: float


@dataclass(frozen=True)
class Skew:
    """Distances of each client, their mean and maximum over clients, and the Gini of the sizes.

    `size_gini` lies in [0, 1): 0 when all clients hold as many rows. Clients without rows count
    in it, and only there.
    """

    clients: dict[str, Distance]
    mean: Distance
    max: Distance
    size_gini: float
    categories: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"Jensen-Shannon {self.mean.jensen_shannon:.2f} (max {self.max.jensen_shannon:.2f}), "
            f"Hellinger {self.mean.hellinger:.2f}, earth mover {self.mean.earth_mover:.2f}, "
            f"effective categories {self.mean.effective_categories:.1f} of {self.categories}, "
            f"size Gini {self.size_gini:.2f}"
        )


def skew(rows: Mapping[str, Sequence[int]], labels: Sequence[str]) -> Skew:
    """Compares each client's labels (`rows`: client → row indices) with those of all clients.

    Raises InputError when no client has a row.
    """
    names, codes = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
    counts = np.array(
        [np.bincount(codes[list(held)], minlength=len(names)) for held in rows.values()]
    )
    if not counts.sum():
        raise InputError("skew: no client has a row; partition some rows first")
    sizes = counts.sum(axis=1)
    counts = counts[:, counts.any(axis=0)]  # labels of dropped rows are no categories here
    shares = counts[sizes > 0] / sizes[sizes > 0, None]  # (clients, labels)
    measured = _distances(shares, counts.sum(axis=0) / counts.sum())
    holders = [client for client, size in zip(rows, sizes, strict=True) if size]
    return Skew(
        clients={client: _distance(row) for client, row in zip(holders, measured, strict=True)},
        mean=_distance(measured.mean(axis=0)),
        max=_distance(measured.max(axis=0)),
        size_gini=_gini(sizes),
        categories=counts.shape[1],
    )


def _distance(row: Shares) -> Distance:
    return Distance(*(float(value) for value in row))


def _distances(p: Shares, q: Shares) -> Shares:
    """(clients, 4): the fields of Distance for each row of p, (clients, labels), against q."""
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    affinity = np.sqrt(p * q).sum(axis=1)
    columns = (
        np.clip(divergence / np.log(2), 0, 1),
        np.sqrt(np.clip(1 - affinity, 0, 1)),
        np.clip(np.abs(p - q).sum(axis=1) / 2, 0, 1),
        np.exp(_entropy(p)),
    )
    return np.stack(columns, axis=1)


def _entropy(p: Shares) -> Shares:
    """Shannon entropy in nats over the last axis, 0 log 0 = 0."""
    entropy: Shares = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)
    return entropy


def _gini(sizes: npt.NDArray[np.int64]) -> float:
    """Mean absolute difference of two clients' sizes over twice their mean."""
    ordered = np.sort(sizes)
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))
