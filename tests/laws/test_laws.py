"""Laws every algorithm obeys on every engine; a new algorithm is one more row in ALGORITHMS."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fedit.algorithms.afl import afl
from fedit.algorithms.apfl import apfl
from fedit.algorithms.ditto import ditto
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedavgm import Momentum
from fedit.algorithms.feddpa import Weighing, feddpa
from fedit.algorithms.feddyn import feddyn
from fedit.algorithms.fedex_lora import fedex_lora
from fedit.algorithms.fednova import fednova
from fedit.algorithms.fedopt import Adaptive
from fedit.algorithms.fedprox import fedprox
from fedit.algorithms.fedrep import fedper, fedrep
from fedit.algorithms.fedrot_lora import fedrot_lora
from fedit.algorithms.fedsa_lora import fedsa_lora
from fedit.algorithms.fedsam import fedsam
from fedit.algorithms.ffa_lora import ffa_lora
from fedit.algorithms.flexlora import flexlora
from fedit.algorithms.flora import flora
from fedit.algorithms.hetlora import hetlora
from fedit.algorithms.ifca import ifca
from fedit.algorithms.perfedavg import perfedavg
from fedit.algorithms.pfedme import pfedme
from fedit.algorithms.qfedavg import qfedavg
from fedit.algorithms.ranks import with_ranks
from fedit.algorithms.rolora import rolora
from fedit.algorithms.scaffold import scaffold
from fedit.algorithms.term import term
from fedit.core.messages import Order, State
from fedit.core.population import Answer
from fedit.core.seats import Algorithm
from fedit.core.tree import only, same
from fedit.core.wire import pack, unpack
from fedit.engines.inprocess import InProcess
from fedit.engines.messages import pack_answer, pack_order
from tests.toy import RATE, Toy, last, toy_policy, tree


@dataclass(frozen=True)
class Row:
    """An algorithm, and the setting under which it must equal FedAvg bit for bit, where there is one.

    `alone` says that one client and one round are plain local training; `sends` are roles of what clients
    keep that they send as well.
    """

    make: Callable[[], Algorithm]
    neutral: Callable[[], Algorithm] | None = None
    alone: bool = True
    sends: tuple[str, ...] = ()


CLIENTS = {f"c{i}": 10 + 7 * i for i in range(6)}  # as in tests/toy.py


def server(made: Callable[..., Any], **options: Any) -> Callable[[], Algorithm]:
    """FedAvg with that server."""
    return lambda: replace(fedavg(), server=made(**options))


def mixed(made: Callable[..., Algorithm], *given: Any) -> Callable[[], Algorithm]:
    """The method for clients of rank 1 and 2."""
    ranks = {client: 1 + number % 2 for number, client in enumerate(CLIENTS)}
    return lambda: with_ranks(made(*given), ranks, 2)


ALGORITHMS = {
    "fedavg": Row(fedavg, fedavg),
    "fedprox": Row(lambda: fedprox(0.3), lambda: fedprox(0.0)),
    "fedavgm": Row(server(Momentum), server(Momentum, beta=0.0, lr=1.0), alone=True),
    "fedadagrad": Row(server(Adaptive, kind="adagrad"), alone=False),
    "fedyogi": Row(server(Adaptive, kind="yogi"), alone=False),
    "fedadam": Row(server(Adaptive, kind="adam"), alone=False),
    "scaffold": Row(lambda: scaffold(6), sends=("control",)),
    "fednova": Row(fednova, fednova),  # the toy's clients all take as many steps
    "feddyn": Row(lambda: feddyn(0.1, 6), alone=False),
    "fedsam": Row(lambda: fedsam(0.1), lambda: fedsam(0.0), alone=False),
    "ffa_lora": Row(ffa_lora),
    "rolora": Row(rolora),
    "fedsa_lora": Row(fedsa_lora, alone=False),
    "fedex_lora": Row(lambda: fedex_lora(2.0)),
    "flora": Row(lambda: flora(2.0), alone=False),
    "flexlora": Row(flexlora, alone=False),
    "hetlora": Row(lambda: hetlora(2), lambda: hetlora(2, by_norm=False)),
    "fedrot_lora": Row(lambda: fedrot_lora(0.5), lambda: fedrot_lora(0.0), alone=False),
    "flora, mixed": Row(mixed(flora, 2.0), alone=False),
    "flexlora, mixed": Row(mixed(flexlora), alone=False),
    "hetlora, mixed": Row(mixed(hetlora, 2), alone=False),
    "qfedavg": Row(lambda: qfedavg(1.0, 1 / RATE), alone=False),
    "afl": Row(lambda: afl(0.1, CLIENTS), lambda: afl(0.0, CLIENTS)),
    "term": Row(lambda: term(1.0), lambda: term(0.0)),
    "ditto": Row(lambda: ditto(0.3), lambda: ditto(0.3)),
    "feddpa": Row(lambda: feddpa(Weighing()), lambda: feddpa(Weighing())),
    "feddpa-f": Row(lambda: feddpa(Weighing(), "f"), lambda: feddpa(Weighing(), "f")),
    "pfedme": Row(lambda: pfedme(15.0, 0.05, 2), alone=False),
    "perfedavg": Row(lambda: perfedavg(0.01), lambda: perfedavg(0.0), alone=False),
    "apfl": Row(lambda: apfl(0.5), lambda: apfl(0.5)),
    "fedper": Row(lambda: fedper(["lora_B"])),
    "fedrep": Row(lambda: fedrep(["lora_B"]), alone=False),
    "ifca": Row(lambda: ifca(2), lambda: ifca(1)),
}
ENGINES = ("inprocess", "loopback", "hosted")  # hosted: what workers do, without the processes

every = pytest.mark.parametrize("row", ALGORITHMS.values(), ids=ALGORITHMS.keys())
# That all engines agree is a law of its own; the others hold on the two that differ most.
on_every = pytest.mark.parametrize(
    "kind", ["inprocess", "pairs"]
)  # hosted, with at most two groups


@pytest.fixture(autouse=True)
def groups(request, monkeypatch):
    """Groups of one, as in all small cohorts, unless there are to be at most two."""
    if request.node.callspec.params.get("kind") == "pairs":
        monkeypatch.setattr("fedit.core.shares.GROUPS", 2)


@dataclass
class Shuffled:
    """An engine whose replies arrive in reverse."""

    inner: InProcess

    def clients(self):
        return self.inner.clients()

    def take_back(self, order, clients):
        self.inner.take_back(order, clients)

    def ask(self, order: Order) -> Iterator[Answer]:
        return reversed(list(self.inner.ask(order)))


@every
@on_every
def test_the_order_of_arrival_changes_nothing(row, kind, tmp_path):
    algorithm, toy = row.make(), Toy(tmp_path)
    usual = toy.run(algorithm, kind)
    reverse = toy.run(algorithm, engine=Shuffled(toy.engine(algorithm, kind, "reverse")))
    assert same(last(usual), last(reverse))


@every
@on_every
def test_the_order_of_the_population_changes_rounding_at_most(row, kind, tmp_path):
    algorithm, toy, turned = row.make(), Toy(tmp_path / "a"), Toy(tmp_path / "b")
    turned.population.reverse()
    everyone = toy_policy(1.0)
    usual = last(toy.run(algorithm, kind, policy=everyone))
    other = last(turned.run(algorithm, kind, policy=everyone))
    for name, value in usual.items():
        torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, row in ALGORITHMS.items() if row.alone])
@on_every
def test_one_client_is_plain_local_training_bit_for_bit(name, kind, tmp_path):
    algorithm, toy = ALGORITHMS[name].make(), Toy(tmp_path, clients=1)
    fit, fits = toy.trainer.fit, []

    def spied(client, order, start, aim, memory):
        fits.append(fit(client, order, start, aim, memory))
        return fits[-1]

    toy.trainer.fit = spied
    [done] = toy.run(algorithm, kind, until=1, policy=toy_policy(1.0))
    sent = only(fits[0].fitted, done.order.travels)  # a second fit is the client's own
    assert same(last([done]), {**tree(1), **sent})
    assert not same(last([done]), tree(1))


@pytest.mark.parametrize("name", [name for name, row in ALGORITHMS.items() if row.neutral])
@on_every
def test_the_neutral_setting_is_fedavg_bit_for_bit(name, kind, tmp_path):
    neutral = Toy(tmp_path / "a").run(ALGORITHMS[name].neutral(), kind)
    plain = Toy(tmp_path / "b").run(fedavg(), kind)
    assert same(last(neutral), last(plain))


@every
@pytest.mark.parametrize("groups", [32, 2])
def test_engines_agree_bit_for_bit(row, groups, tmp_path, monkeypatch):
    monkeypatch.setattr("fedit.core.shares.GROUPS", groups)

    def result(kind):
        toy = Toy(tmp_path / kind, keep=True)
        engine = toy.engine(row.make(), kind, dropout=0.3)
        return last(toy.run(row.make(), engine=engine, policy=toy_policy(5, minimum=1)))

    results = [result(kind) for kind in ENGINES]
    assert all(same(results[0], other) for other in results[1:])


@every
@pytest.mark.parametrize(
    ("kind", "keep"), [("inprocess", False), ("inprocess", True), ("pairs", True)]
)
def test_killed_after_any_round_and_resumed_is_never_killed(row, kind, keep, tmp_path):
    algorithm, whole = row.make(), Toy(tmp_path / "whole", keep=keep)
    undisturbed = whole.run(algorithm, kind, until=6)
    for killed in (0, 1, 4):
        toy = Toy(tmp_path / f"killed-{killed}", keep=keep)
        state = algorithm.server.init(tree(1))
        if killed:
            state = toy.run(algorithm, kind, until=killed)[-1].state
        _train_and_crash(toy, algorithm, kind, state)
        resumed = toy.run(algorithm, kind, state=_through_bytes(state), until=6)
        assert same(last(resumed), last(undisturbed)), f"killed in round {killed + 1}"


def _train_and_crash(toy: Toy, algorithm: Algorithm, kind: str, state: State) -> None:
    """Clients of the next round train and keep what they keep, but the server dies before its step."""
    crash = replace(algorithm, server=_Dies(algorithm.server))
    with pytest.raises(KeyboardInterrupt):
        toy.run(crash, kind, state=state, until=state.round + 1)


@dataclass
class _Dies:
    server: object

    def init(self, adapter):
        return self.server.init(adapter)

    def step(self, state, total, order):
        raise KeyboardInterrupt


def _through_bytes(state: State) -> State:
    """A state as a checkpoint gives it back."""
    public, _ = unpack(pack(state.public, {}))
    private, _ = unpack(pack(state.private, {}))
    return State(state.round, public, private)


@every
@on_every
def test_nothing_private_reaches_the_wire(row, kind, tmp_path):
    """Private state, homes and targets are searched for in every byte of every message."""
    algorithm, toy = row.make(), Toy(tmp_path, keep=True)
    messages: list[bytes] = []
    engine = toy.engine(algorithm, kind)
    ask = engine.ask

    def tapped(order: Order) -> Iterator[Answer]:
        messages.extend(pack_order(order, client) for client in order.cohort)
        for reply in ask(order):
            messages.append(pack_answer(reply))
            yield reply

    secret = torch.full((8,), 123.456)
    start = algorithm.server.init(tree(1))
    start = replace(start, private={**start.private, "moments": {"m": secret}})
    toy.run(
        algorithm,
        engine=type("Tapped", (), {"ask": staticmethod(tapped), "clients": engine.clients})(),
        state=start,
    )
    wire = b"".join(messages)
    assert tree(1)["layer.lora_A"].numpy().tobytes() in wire, (
        "the search itself must find what is sent"
    )
    assert secret.numpy().tobytes() not in wire
    speeds = [
        value
        for client in toy.population
        for role, value in _home_tensors(engine, client.id)
        if role not in row.sends and bool(value.any())
    ]
    assert speeds
    assert not any(speed.numpy().tobytes() in wire for speed in speeds)
    for target in toy.trainer.targets.values():
        assert not any(value.numpy().tobytes() in wire for value in target.values())


def _home_tensors(engine: InProcess, client: str):
    home = engine.homes.load(client, 10**6)
    return [(role, value) for role, tree in home.payload.items() for value in tree.values()]


@every
@on_every
def test_seeds_change_cohorts_and_keep_bits(row, kind, tmp_path):
    def cohorts(done):
        return json.dumps([one.order.cohort for one in done])

    first = Toy(tmp_path / "a").run(row.make(), kind, seed=3)
    again = Toy(tmp_path / "b").run(row.make(), kind, seed=3)
    other = Toy(tmp_path / "c").run(row.make(), kind, seed=4)
    assert same(last(first), last(again))
    assert cohorts(first) == cohorts(again) != cohorts(other)
