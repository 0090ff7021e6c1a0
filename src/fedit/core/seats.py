"""The seats an algorithm fills; each is a function or a small object, none is a base class."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor

from fedit.core.errors import InputError
from fedit.core.messages import (
    ADAPTER,
    KEPT,
    Client,
    Failure,
    Home,
    Member,
    Metrics,
    Order,
    Packed,
    Payload,
    Reply,
    State,
    Update,
    received_by,
)
from fedit.core.tree import Specs, Tree

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


class Local(Protocol):
    """What a client does with an order; `roles` are the further roles it sends, shaped like the adapter."""

    @property
    def roles(self) -> tuple[str, ...]: ...

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work: ...


Scope = Callable[[int, frozenset[str]], tuple[frozenset[str], frozenset[str]]]
"""(round, all names) → (names that train, names that travel)."""


T = TypeVar("T")
"""A round's replies under combination: what it holds is between a Combine and a Server."""


class Combine(Protocol[T]):
    """Streams updates into totals of groups, and those into one.

    A `linear` rule's total is a `fedit.core.sums.Sum`: it may be made on workers or under secure
    aggregation. To merge with an empty total changes nothing, and to add to one is to merge its like.
    """

    @property
    def linear(self) -> bool: ...

    def start(self, order: Order, spare: T | None = None) -> T:
        """An empty total; `spare` is one that nobody needs any more, to be written over."""
        ...

    def add(self, total: T, update: Update, order: Order) -> T: ...

    def merge(self, total: T, other: T) -> T:
        """The total with `other` added; `other` may be written over afterwards."""
        ...


T_in = TypeVar("T_in", contravariant=True)


class Server(Protocol[T_in]):
    """Turns a round's total into the next state."""

    def init(self, adapter: Tree) -> State: ...

    def step(self, state: State, total: T_in, order: Order) -> State: ...


class Guard(Protocol):
    """What an update passes on its way: sealed on the client, opened where it is added, settled in the total.

    Guards seal in their order and open in reverse, before the gate. What a `late` one has sealed stays
    so until the total: the gate, and then the sum, see it as it is (a secure sum). One that
    is not late may settle the total too (noise for all).
    """

    @property
    def late(self) -> bool: ...

    def seal(self, update: Update, order: Order, home: Home) -> tuple[Update, Payload]:
        """On the client: what travels, and what the client keeps for the next time, by role."""
        ...

    def sealed(self, plain: Specs) -> Specs:
        """Names, shapes and dtypes of what travels, from those of what is sealed."""
        ...

    def open(self, update: Update, order: Order, plain: Specs) -> Update:
        """Where updates are added: the update that was sealed, of that spec.

        Raises `Unfit` whatever is wrong with what came.
        """
        ...

    def settle(self, total: Any, order: Order) -> Any:
        """On the server: the total of a round, in reverse order of sealing."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What a round begins with: `state` as clients receive it, and the server's memory of what they do not.

    The round's step is made from `state`; `memory` becomes part of the next one's private payload.
    """

    state: State
    packed: Packed | None = None
    memory: Payload = field(default_factory=dict)


Down = Callable[[State], Sent]
"""How a state goes out to clients."""


def as_it_is(state: State) -> Sent:
    """Clients receive all of the public payload as it is."""
    return Sent(state)


Origin = Callable[[Update, Order], Tree]
"""(update without its payload, order) → what its values differ from: all names, of the client's shapes."""


def from_received(update: Update, order: Order) -> Tree:
    """A client begins at what it received."""
    return received_by(update.client, order)


class Select(Protocol):
    """Draws a round's cohort from the population; the same generator state gives the same cohort."""

    def __call__(self, population: Sequence[Client], rng: np.random.Generator) -> list[Member]: ...


@dataclass(frozen=True, slots=True)
class Weights:
    """Weight by client id in the order of combination, and the pace: the step taken towards the mean.

    A mean renormalised over the cohort has pace 1; an unbiased one has the sum of its weights, which is 1
    only on average over cohorts.
    """

    by_client: Mapping[str, float]
    pace: float = 1.0


@dataclass(slots=True)
class Share(Generic[T]):
    """What a group of clients came to: the total of its updates, who replied what, who failed and why."""

    clients: tuple[str, ...]
    total: T
    metrics: dict[str, Metrics] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


Answer = Reply | Share[Any]
"""What an engine gives: single replies, or the finished share of a whole group."""

Weigh = Callable[[Sequence[Member], Sequence[Client]], Weights]
"""(cohort, population) → weights."""


class Engine(Protocol):
    """Where clients live: in this process, on workers, on a cluster, at other organisations."""

    def clients(self) -> Sequence[Client]:
        """The population, in a fixed order."""
        ...

    def ask(self, order: Order) -> Iterator[Answer]:
        """Answers as they arrive, every member of the cohort accounted for once.

        A reply stands for one client; a share, for a linear rule, for a whole group of the cohort.
        """
        ...

    def take_back(self, order: Order, clients: Sequence[str]) -> None:
        """Undo what the order left with these members of its cohort, whose part does not count.

        What they keep between rounds is as it was before; this lasts once the call has returned.
        """
        ...

    def close(self) -> None:
        """Let go of everything the engine holds, such as processes; a second time does nothing."""
        ...


Prepare = Callable[[State, Order], Order]
"""(state, the usual order) → the order: weights that depend on the state, what only some clients receive."""


Own = Callable[[Tree, Order, Home, Fitter], Tree]
"""(what a client received, its order, what it keeps, its trainer) → its own model."""


def as_received(received: Tree, order: Order, home: Home, fit: Fitter) -> Tree:
    """What was received, with what never leaves the client in its place."""
    return {**received, **home.payload.get(KEPT, {})}


Measure = Callable[[State, State, Any, Order], Metrics]
"""(state before, state after, the round's total, order) → what to tell of the round."""


def nothing(old: State, new: State, total: Any, order: Order) -> Metrics:
    """There is nothing to tell."""
    return {}


def unchanged(state: State, order: Order) -> Order:
    """The usual order."""
    return order


@dataclass(frozen=True)
class Algorithm(Generic[T]):
    """A federated method: its seats, checked against each other when it is built.

    `own` is a client's own model and `begins` the one that it would begin a round with. `weighs` says in
    words what clients count by where it is not their order's weights.
    `reads` are the metrics it combines by, each with the least and the most that a client may say.
    """

    name: str
    local: Local
    scope: Scope
    combine: Combine[T]
    server: Server[T]
    guards: tuple[Guard, ...] = ()
    prepare: Prepare = unchanged
    begins: Own = as_received
    own: Own = as_received
    measure: Measure = nothing
    weighs: str = ""
    reads: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    origin: Origin = from_received
    down: Down = as_it_is

    def __post_init__(self) -> None:
        if ADAPTER in self.local.roles:
            raise InputError(
                f"algorithm {self.name}: its local part names {ADAPTER!r} among the further roles it sends; "
                "that role is always sent, drop it from `roles`"
            )


def everything(round: int, names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The usual scope: every parameter trains and every parameter travels."""
    return names, names
