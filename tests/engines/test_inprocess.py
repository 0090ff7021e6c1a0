from dataclasses import replace

import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.core.errors import BrokenInvariant, FeditError
from fedit.core.messages import ADAPTER, Client, Failure, Home, Order, Update
from fedit.core.tree import same
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess, through_bytes
from fedit.engines.messages import pack_order, pack_update
from tests.toy import Toy, last, toy_policy, tree

IDS = [f"c{i}" for i in range(8)]
NAMES = frozenset(tree(1))


def order(round=0, attempt=0, seed=0, ids=IDS) -> Order:
    return Order(round, attempt, seed, {ADAPTER: tree(1)}, dict.fromkeys(ids, 1.0), NAMES, NAMES)


def echo(asked: Order, client: str, home: Home) -> tuple[Update, Home]:
    count = home.payload.get("count", {"n": torch.zeros(1)})["n"] + 1
    update = Update(client, asked.round, asked.attempt, {ADAPTER: asked.public[ADAPTER]})
    return update, Home({"count": {"n": count}})


def engine(tmp_path, answer=echo, dropout=0.0) -> InProcess:
    return InProcess(answer, [Client(c, 1, 1) for c in IDS], Homes(tmp_path / "homes"), dropout)


def dropped(replies) -> list[str]:
    return [r.client for r in replies if isinstance(r, Failure) and r.reason == "dropout"]


def test_dropout_follows_the_seed_the_round_and_the_attempt(tmp_path):
    some = engine(tmp_path, dropout=0.5)
    asked = [order(), order(round=1), order(attempt=1), order(seed=1)]
    gone = [dropped(some.ask(one)) for one in asked]
    assert gone[0] == dropped(some.ask(order()))
    assert len({tuple(one) for one in gone}) == 4
    assert all(0 < len(one) < 8 for one in gone)


def test_dropout_is_the_clients_own_and_does_not_hang_on_who_else_is_asked(tmp_path):
    some = engine(tmp_path, dropout=0.5)
    apart = [c for c in IDS if dropped(some.ask(order(ids=[c])))]
    assert apart == dropped(some.ask(order()))


def test_the_dropout_rate_is_the_planned_one(tmp_path):
    quick = engine(tmp_path, lambda o, c, h: (echo(o, c, h)[0], Home()), dropout=0.3)
    gone = sum(len(dropped(quick.ask(order(round)))) for round in range(100))
    assert 0.25 < gone / 800 < 0.35


def test_without_dropout_everybody_replies_in_cohort_order(tmp_path):
    assert [r.client for r in engine(tmp_path).ask(order(ids=IDS[::-1]))] == IDS[::-1]


@pytest.mark.parametrize("error", [FeditError("no rows"), RuntimeError("out of memory")])
def test_a_clients_error_is_its_failure_and_spares_the_others(error, tmp_path):
    def answer(asked, client, home):
        if client == "c2":
            raise error
        return echo(asked, client, home)

    replies = list(engine(tmp_path, answer).ask(order()))
    assert [r.client for r in replies] == IDS
    failed = [r for r in replies if isinstance(r, Failure)]
    assert [(f.client, f.reason) for f in failed] == [("c2", "error")]
    assert failed[0].detail == f"{type(error).__name__}: {error}"
    assert not (tmp_path / "homes" / "c2").exists()


@pytest.mark.parametrize(
    "error", [BrokenInvariant("the base changed"), KeyError("bug"), KeyboardInterrupt()]
)
def test_what_must_stop_the_run_stops_it(error, tmp_path):
    def answer(asked, client, home):
        raise error

    with pytest.raises(type(error)):
        list(engine(tmp_path, answer).ask(order()))


def test_traffic_is_counted_in_the_bytes_that_would_travel(tmp_path):
    for reply in engine(tmp_path).ask(order()):
        bare = replace(reply, metrics={})
        assert reply.metrics == {
            "bytes_down": float(len(pack_order(order(), reply.client))),
            "bytes_up": float(len(pack_update(bare))),
            "bytes_kept": reply.metrics["bytes_kept"],
        }


def test_clients_are_trained_one_by_one_as_replies_are_taken(tmp_path):
    trained = []

    def answer(asked, client, home):
        trained.append(client)
        return echo(asked, client, home)

    replies = engine(tmp_path, answer).ask(order())
    assert trained == []
    next(replies)
    assert trained == ["c0"]


def count(some: InProcess, client: str, round: int) -> float:
    home = some.homes.load(client, round)
    return home.payload["count"]["n"].item() if home.payload else 0.0


def test_homes_go_from_round_to_round(tmp_path):
    some = engine(tmp_path)
    for round in range(3):
        list(some.ask(order(round)))
    assert [count(some, "c0", round) for round in range(4)] == [0, 1, 2, 3]


def test_a_repeated_round_leaves_no_trace_in_any_home(tmp_path):
    """Clients of the first attempt, asked again or not, are as if it had not been."""
    some = engine(tmp_path)
    list(some.ask(order(0)))
    list(some.ask(order(1, attempt=0, ids=["c0", "c1"])))
    list(some.ask(order(1, attempt=1, ids=["c1", "c2"])))
    assert [count(some, c, 2) for c in ("c0", "c1", "c2")] == [1, 2, 2]


def test_what_was_kept_in_rounds_that_a_crash_took_back_is_forgotten(tmp_path):
    some = engine(tmp_path)
    for round in range(3):
        list(some.ask(order(round)))
    list(some.ask(order(1, ids=["c1"])))
    assert [count(some, c, 3) for c in ("c0", "c1")] == [1, 2]


def test_through_bytes_an_answer_sees_only_its_own_order(tmp_path):
    seen = []

    def answer(asked, client, home):
        seen.append((asked.cohort, set(asked.personal)))
        return echo(asked, client, home)

    personal = {c: {ADAPTER: tree(5)} for c in ("c0", "c1")}
    list(engine(tmp_path, through_bytes(answer, fedavg())).ask(replace(order(), personal=personal)))
    assert seen[:3] == [(("c0",), {"c0"}), (("c1",), {"c1"}), (("c2",), set())]


def test_dropouts_do_not_change_what_the_others_send(tmp_path):
    """The mean is over who replied, in process and through bytes alike."""
    toy, results = Toy(tmp_path), []
    for kind in ("inprocess", "loopback"):
        lossy = replace(toy.engine(fedavg(), kind, kind), dropout=0.4)
        done = toy.run(fedavg(), engine=lossy, policy=toy_policy(1.0, minimum=1), until=4)
        assert any(one.failures for one in done)
        results.append(last(done))
    assert same(*results)
