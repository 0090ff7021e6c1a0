"""What server and clients say to each other, and what each keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile

from fedit.core.codes import Code
from fedit.core.tree import Tree

Payload = dict[str, Tree]
"""Role → tree: "adapter", "control" …; every role that travels is counted in bytes."""

Metrics = dict[str, float]

ADAPTER = "adapter"
"""The role of the parameters under training."""

KEPT = "kept"
"""Home role of the trained parameters that do not travel."""

BASE = "base"
"""The role of what methods have added to the base's weights, [out × in] by the name of the layer."""

CLUSTER = "cluster"
"""Metric: which of several global models a client has trained, from 0."""


def role_of(cluster: int) -> str:
    """The public role of one of several global models; the first is the adapter itself."""
    return f"{CLUSTER}.{cluster}" if cluster else ADAPTER


def models(public: Payload) -> list[Tree]:
    """All global models in their order: one, but for methods that have several."""
    roles = takewhile(public.__contains__, map(role_of, count()))
    return [public[role] for role in roles]


@dataclass(frozen=True, slots=True)
class Client:
    """A member of the population as the server knows it: its counts come from enrolment, not from replies."""

    id: str
    examples: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Member:
    """A client in a cohort: how often it was drawn and how often it would be drawn on average (> 0)."""

    client: Client
    draws: int = 1
    expected: float = 1.0


@dataclass(frozen=True, slots=True)
class State:
    """The federation after `round` rounds: clients receive all of `public` and nothing of `private`."""

    round: int
    public: Payload
    private: Payload = field(default_factory=dict)

    @property
    def adapter(self) -> Tree:
        """The global adapter."""
        return self.public[ADAPTER]


@dataclass(frozen=True, slots=True)
class Packed:
    """Roles of a payload in the short form in which they travel."""

    code: Code
    payload: Payload


@dataclass(frozen=True, slots=True)
class Order:
    """Server → clients: train from `public`.

    `attempt` counts from 0 when a round is repeated. `weights` (by client id, > 0) say how replies will be
    combined and `pace` how far the server moves towards their mean. `trains` and `travels` name the
    parameters that are trained and the ones that leave the client; `personal` holds what differs for one
    client. `caps` is the gate's: by role the most that an update's norm may be, none of a client's business.
    `packed` is what travels in place of those roles of `public`, which hold what it is unpacked to.
    """

    round: int
    attempt: int
    seed: int
    public: Payload
    weights: Mapping[str, float]
    trains: frozenset[str]
    travels: frozenset[str]
    pace: float = 1.0
    personal: Mapping[str, Payload] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    packed: Packed | None = None

    @property
    def cohort(self) -> tuple[str, ...]:
        """Client ids in the order in which replies are combined."""
        return tuple(self.weights)


def received_by(client: str, order: Order) -> Tree:
    """The adapter that a client receives: what all do, and in its place what is the client's own."""
    own = order.personal.get(client, {}).get(ADAPTER, {})
    return {**order.public.get(ADAPTER, {}), **own}


@dataclass(frozen=True, slots=True)
class Update:
    """Client → server: fitted parameters by role (values, not differences) and what the client measured."""

    client: str
    round: int
    attempt: int
    payload: Payload
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable update from a client: a value, not an exception. `reason` is a short fixed word."""

    client: str
    reason: str
    detail: str = ""


Reply = Update | Failure


@dataclass(frozen=True, slots=True)
class Home:
    """What a client keeps between rounds, by role: control variates, optimizer moments, private factors."""

    payload: Payload = field(default_factory=dict)
