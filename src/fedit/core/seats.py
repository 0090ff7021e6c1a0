"""The seats an algorithm fills; each is a function or a small object, none is a base class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from fedit.core.errors import InputError
from fedit.core.fitting import Fitter, Work
from fedit.core.messages import (
    ADAPTER,
    KEPT,
    Home,
    Metrics,
    Order,
    Packed,
    Payload,
    State,
    Update,
    received_by,
)
from fedit.core.tree import Specs, Tree


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
