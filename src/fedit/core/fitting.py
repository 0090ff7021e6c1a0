"""What a client trains with: a fit, what is unlike plain training in it, and who computes gradients."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from fedit.core.messages import Metrics, Order, Payload
from fedit.core.tree import Tree

Pull = Callable[[Tree], Tree]
"""Current parameters → what is added to their gradient, name by name (FedProx, SCAFFOLD, Ditto)."""


@dataclass(frozen=True, slots=True)
class Look:
    """Gradients are taken ahead of where the parameters are (FedSAM, Per-FedAvg).

    `ahead` says how far, from the gradients where they are; with `fresh` the gradients ahead are those of
    the next batch.
    """

    ahead: Pull
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Aim:
    """What is unlike plain training of `order.trains` from the order's start.

    `again` names a further fit in the same round, which draws its own batches and has an optimizer of its
    own, forgotten afterwards.
    """

    pull: Pull | None = None
    look: Look | None = None
    trains: frozenset[str] | None = None
    again: str = ""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a trainer made of a start: the fitted tree, its optimizer's memory if kept, and measurements.

    `path` is the sum of the learning rates of all steps: under plain SGD the way back over it is the mean
    gradient.
    """

    fitted: Tree
    memory: Payload = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    path: float = 0.0


class Trainer(Protocol):
    """Holds the base model and the clients' data: the one place where gradients are computed."""

    def fit(self, client: str, order: Order, start: Tree, aim: Aim, memory: Payload) -> Fit:
        """Train from `start` on the client's data.

        The same arguments give the same bits. Raises `FeditError` if the client has nothing to learn from.
        """
        ...

    def loss(self, client: str, order: Order, at: Tree) -> float:
        """The mean loss over the client's data, training nothing."""
        ...

    def texts(self, client: str, order: Order, at: Tree) -> Tensor:
        """What each of the client's prompts is to the base, a vector: [rows × width], fp32.

        `at` says what the base is where the parameters that train are its own.
        """
        ...


class Fitter(Protocol):
    """A trainer bound to one client and one order: all that an algorithm's local part sees of it."""

    def __call__(
        self,
        start: Tree,
        pull: Pull | None = None,
        *,
        look: Look | None = None,
        trains: frozenset[str] | None = None,
        again: str = "",
    ) -> Fit: ...

    def loss(self, at: Tree) -> float: ...

    def texts(self, at: Tree) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Work:
    """One client's result: fitted parameters, further roles to send, and what it keeps."""

    fit: Fit
    extra: Payload = field(default_factory=dict)
    home: Payload = field(default_factory=dict)
