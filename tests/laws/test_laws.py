"""Laws every algorithm obeys on every engine; a new algorithm is one more row in ALGORITHMS."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import fedprox
from fedit.core.messages import Order, State
from fedit.core.seats import Aim, Algorithm, Answer
from fedit.core.tree import same
from fedit.core.wire import pack, unpack
from fedit.engines.inprocess import InProcess
from fedit.engines.messages import pack_answer, pack_order
from tests.toy import Toy, last, toy_policy, tree


@dataclass(frozen=True)
class Row:
    """An algorithm, and the setting under which it must equal FedAvg bit for bit."""

    make: Callable[[], Algorithm]
    neutral: Callable[[], Algorithm]


ALGORITHMS = {
    "fedavg": Row(fedavg, fedavg),
    "fedprox": Row(lambda: fedprox(0.3), lambda: fedprox(0.0)),
}
ENGINES = ("inprocess", "loopback", "hosted")  # hosted: what workers do, without the processes

every = pytest.mark.parametrize("row", ALGORITHMS.values(), ids=ALGORITHMS.keys())
on_every = pytest.mark.parametrize("kind", ENGINES)


@pytest.fixture(autouse=True, params=[32, 2], ids=["ones", "pairs"])
def groups(request, monkeypatch):
    """Every law with groups of one, as in all small cohorts, and with at most two groups."""
    monkeypatch.setattr("fedit.core.shares.GROUPS", request.param)


@dataclass
class Shuffled:
    """An engine whose replies arrive in reverse."""

    inner: InProcess

    def clients(self):
        return self.inner.clients()

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


@every
@on_every
def test_one_client_is_plain_local_training_bit_for_bit(row, kind, tmp_path):
    algorithm, toy = row.make(), Toy(tmp_path, clients=1)
    usual = toy.run(algorithm, kind, until=1, policy=toy_policy(1.0))
    order = usual[0].order
    alone = toy.trainer.fit("c0", order, tree(1), Aim(_pull(algorithm, order)), {})
    assert same(last(usual), alone.fitted)
    assert not same(last(usual), tree(1))


def _pull(algorithm: Algorithm, order: Order):
    """The pull that the algorithm's local part hands to the trainer."""
    seen = []

    def fit(start, pull=None):
        seen.append(pull)
        from fedit.core.seats import Fit

        return Fit(start)

    from fedit.core.messages import Home

    algorithm.local(order.public["adapter"], order, Home(), fit)
    return seen[0]


@every
@on_every
def test_the_neutral_setting_is_fedavg_bit_for_bit(row, kind, tmp_path):
    neutral = Toy(tmp_path / "a").run(row.neutral(), kind)
    plain = Toy(tmp_path / "b").run(fedavg(), kind)
    assert same(last(neutral), last(plain))


@every
def test_engines_agree_bit_for_bit(row, tmp_path):
    def result(kind):
        toy = Toy(tmp_path / kind, keep=True)
        engine = toy.engine(row.make(), kind, dropout=0.3)
        return last(toy.run(row.make(), engine=engine, policy=toy_policy(5, minimum=1)))

    results = [result(kind) for kind in ENGINES]
    assert all(same(results[0], other) for other in results[1:])


@every
@on_every
@pytest.mark.parametrize("keep", [False, True], ids=["fresh", "kept-optimizer"])
def test_killed_after_any_round_and_resumed_is_never_killed(row, kind, keep, tmp_path):
    algorithm, whole = row.make(), Toy(tmp_path / "whole", keep=keep)
    undisturbed = whole.run(algorithm, kind, until=6)
    for killed in range(6):
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
    start = replace(algorithm.server.init(tree(1)), private={"moments": {"m": secret}})
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
    speeds = [home for client in toy.population for home in _home_tensors(engine, client.id)]
    assert speeds
    assert not any(speed.numpy().tobytes() in wire for speed in speeds)
    for target in toy.trainer.targets.values():
        assert not any(value.numpy().tobytes() in wire for value in target.values())


def _home_tensors(engine: InProcess, client: str):
    home = engine.homes.load(client, 10**6)
    return [value for role in home.payload.values() for value in role.values()]


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
