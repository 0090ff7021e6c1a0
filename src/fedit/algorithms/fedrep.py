"""FedPer and FedRep: some parameters are shared, the rest stays (arXiv 1912.00818, 2102.07078)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedit.algorithms.fedavg import fedavg
from fedit.core.errors import InputError
from fedit.core.fitting import Fitter, Work
from fedit.core.messages import Home, Order
from fedit.core.seats import Algorithm
from fedit.core.sums import Sum
from fedit.core.tree import Tree


@dataclass(frozen=True, slots=True)
class Private:
    """Names that hold one of `parts` stay with their client; all names train."""

    parts: tuple[str, ...]

    def __call__(self, round: int, names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        stays = {name for name in names if any(part in name for part in self.parts)}
        if missing := [part for part in self.parts if not any(part in name for name in names)]:
            raise InputError(
                f"algorithm.personal: {missing[0]!r} is in no parameter's name; one is {min(names)}"
            )
        if stays == names:
            raise InputError(
                "algorithm.personal: it names every parameter, so none would be shared"
            )
        return names, names - stays


@dataclass(frozen=True, slots=True)
class HeadFirst:
    """FedRep's two phases: what stays is trained while the rest stands still, then the rest."""

    roles: tuple[str, ...] = ()

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        private = order.trains - order.travels
        if private:
            start = fit(start, trains=private, again="head").fitted
        return Work(fit(start, trains=order.travels))


def fedper(personal: Sequence[str]) -> Algorithm[Sum]:
    """FedPer: all parameters train together; those whose names hold one of `personal` are never sent."""
    return replace(fedavg(), name="fedper", scope=Private(tuple(personal)))


def fedrep(personal: Sequence[str]) -> Algorithm[Sum]:
    """FedRep: as FedPer, each round first the private part and then the shared one."""
    return replace(fedper(personal), name="fedrep", local=HeadFirst())
