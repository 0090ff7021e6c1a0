from dataclasses import dataclass, field, replace

import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.core.client import KEPT, MEMORY, answer
from fedit.core.codes import Unfit
from fedit.core.errors import FeditError, InputError
from fedit.core.fitting import Fit, Work
from fedit.core.messages import ADAPTER, Home, Order, Update
from fedit.core.seats import Algorithm
from fedit.core.shares import combined
from fedit.core.sums import Sum
from fedit.core.tree import same, spec
from tests.toy import SHAPES, Toy, last, toy_policy, tree

A, B = sorted(SHAPES)


def scoped(trains: set[str], travels: set[str]) -> Algorithm:
    wanted = frozenset(trains), frozenset(travels)
    return replace(fedavg(), name="scoped", scope=lambda round, names: wanted)


def order(trains=(A, B), travels=(A, B), **more) -> Order:
    return Order(
        0, 0, 0, {ADAPTER: tree(1)}, {"c0": 1.0}, frozenset(trains), frozenset(travels), **more
    )


@dataclass
class Spy:
    """A trainer that adds 1 to what it trains and remembers what it was given."""

    seen: list[tuple] = field(default_factory=list)

    def fit(self, client, order, start, aim, memory) -> Fit:
        self.seen.append((client, start, memory))
        fitted = {n: t + 1 if n in order.trains else t.clone() for n, t in start.items()}
        step = torch.tensor([float(len(self.seen))])
        return Fit(fitted, {"step": dict.fromkeys(order.trains, step)}, {"loss": 0.5})


def test_everything_travels_and_nothing_is_kept_by_the_usual_scope(tmp_path):
    toy = Toy(tmp_path)
    update, home = answer(order(), "c0", Home(), toy.trainer, fedavg())
    assert update.payload.keys() == {ADAPTER}
    assert update.payload[ADAPTER].keys() == {A, B}
    assert home == Home()
    assert (update.client, update.round, update.attempt) == ("c0", 0, 0)
    assert update.metrics.keys() == {"loss", "steps"}


def test_what_trains_but_does_not_travel_stays_at_home_and_is_restored():
    spy, algorithm = Spy(), scoped({A, B}, {A})
    asked = order((A, B), (A,))
    update, home = answer(asked, "c0", Home(), spy, algorithm)
    assert update.payload == {ADAPTER: {A: update.payload[ADAPTER][A]}}
    assert same(home.payload[KEPT], {B: tree(1)[B] + 1})
    _, home = answer(asked, "c0", home, spy, algorithm)
    assert same(spy.seen[1][1], {A: tree(1)[A], B: tree(1)[B] + 1})
    assert same(home.payload[KEPT], {B: tree(1)[B] + 2})


def test_what_is_kept_survives_a_round_in_which_it_does_not_train():
    spy = Spy()
    _, home = answer(order((A, B), (A,)), "c0", Home(), spy, scoped({A, B}, {A}))
    _, home = answer(order((A,), (A,)), "c0", home, spy, scoped({A}, {A}))
    assert same(spy.seen[1][1], {A: tree(1)[A], B: tree(1)[B] + 1})
    assert same(home.payload[KEPT], {B: tree(1)[B] + 1})
    assert {n: t.item() for n, t in home.payload[MEMORY + "step"].items()} == {A: 2.0, B: 1.0}


@pytest.mark.parametrize("kind", ["inprocess", "loopback"])
def test_a_private_factor_never_changes_the_global_one_and_differs_by_client(kind, tmp_path):
    toy, algorithm = Toy(tmp_path), scoped({A, B}, {A})
    engine = toy.engine(algorithm, kind)
    done = toy.run(algorithm, engine=engine, policy=toy_policy(1.0), until=2)
    assert torch.equal(last(done)[B], tree(1)[B])
    assert not torch.equal(last(done)[A], tree(1)[A])
    kept = [engine.homes.load(c.id, 2).payload[KEPT] for c in toy.population]
    assert all(home.keys() == {B} for home in kept)
    assert not any(same(kept[0], other) for other in kept[1:])


@pytest.mark.parametrize("kind", ["inprocess", "loopback"])
def test_a_frozen_name_is_the_same_everywhere_and_never_sent(kind, tmp_path):
    toy, algorithm = Toy(tmp_path), scoped({B}, {B})
    engine = toy.engine(algorithm, kind)
    replies: list[Update] = []
    ask, fit, starts = engine.ask, toy.trainer.fit, []

    def tapped(asked):
        for one in ask(asked):
            replies.append(one)
            yield one

    def spied(client, asked, start, aim, memory):
        starts.append(start[A])
        return fit(client, asked, start, aim, memory)

    toy.trainer.fit = spied
    tap = type("Tapped", (), {"ask": staticmethod(tapped), "clients": engine.clients})()
    done = toy.run(algorithm, engine=tap, until=3)
    assert torch.equal(last(done)[A], tree(1)[A])
    assert not torch.equal(last(done)[B], tree(1)[B])
    assert len(starts) == 9
    assert all(torch.equal(start, tree(1)[A]) for start in starts)
    assert all(one.payload[ADAPTER].keys() == {B} for one in replies)


def test_the_optimizers_memory_stays_at_home_and_comes_back():
    spy = Spy()
    _, home = answer(order(), "c0", Home(), spy, fedavg())
    assert home.payload.keys() == {MEMORY + "step"}
    update, _ = answer(order(), "c0", home, spy, fedavg())
    assert spy.seen[0][2] == {}
    assert same(spy.seen[1][2]["step"], dict.fromkeys((A, B), torch.tensor([1.0])))
    assert update.payload.keys() == {ADAPTER}


def test_a_personal_adapter_replaces_the_public_one_for_its_client_only():
    spy, mine = Spy(), {B: torch.full(SHAPES[B], 7.0)}
    asked = order(personal={"c0": {ADAPTER: mine}})
    answer(asked, "c0", Home(), spy, fedavg())
    answer(asked, "c1", Home(), spy, fedavg())
    assert same(spy.seen[0][1], {**tree(1), **mine})
    assert same(spy.seen[1][1], tree(1))


def test_a_local_part_sends_further_roles_and_keeps_its_own():
    @dataclass(frozen=True)
    class Extra:
        roles: tuple[str, ...] = ("control",)

        def __call__(self, start, asked, home, fit):
            count = home.payload.get("count", {"n": torch.zeros(1)})
            return Work(fit(start), {"control": start}, {"count": {"n": count["n"] + 1}})

    algorithm = replace(fedavg(), local=Extra())
    update, home = answer(order(), "c0", Home(), Spy(), algorithm)
    update, home = answer(order(), "c0", home, Spy(), algorithm)
    assert same(update.payload["control"], tree(1))
    assert home.payload["count"]["n"].item() == 2.0


# ---- guards


@dataclass
class Affine:
    """Seals by x → factor·x + shift; opens a weighted sum of such values."""

    name: str
    factor: float
    shift: float
    log: list[str]
    late: bool = True

    def seal(self, update, asked, home):
        self.log.append("seal " + self.name)
        sealed = {n: t * self.factor + self.shift for n, t in update.payload[ADAPTER].items()}
        return replace(update, payload={ADAPTER: sealed}), {self.name: {"n": torch.ones(1)}}

    def sealed(self, plain):
        return plain

    def open(self, update, asked, plain):
        raise AssertionError("one that is late opens totals only")

    def settle(self, total: Sum, asked):
        self.log.append("settle " + self.name)
        opened = (total.numbers[ADAPTER] - self.shift * total.mass()) / self.factor
        return replace(total, numbers={ADAPTER: opened})


@dataclass(frozen=True)
class Astray:
    """Keeps a model of its own that has diverged."""

    roles: tuple[str, ...] = ()

    def __call__(self, start, order, home, fit) -> Work:
        return Work(fit(start), home={"own": {n: t / 0 for n, t in start.items()}})


def test_what_diverged_is_not_kept_either():
    with pytest.raises(FeditError, match=r"training diverged: .*begin anew with a lower local\.lr"):
        answer(order(), "c0", Home(), Spy(), replace(fedavg(), local=Astray()))


def test_who_was_sent_what_cannot_be_trained_is_not_told_to_train_slower():
    spoiled = replace(order(), public={ADAPTER: {n: t + 3e38 for n, t in tree(1).items()}})
    with pytest.raises(FeditError, match=r"began at numbers up to 3e\+38.*gate\.times_median"):
        answer(spoiled, "c0", Home(), Spy(), replace(fedavg(), local=Astray()))


def test_late_guards_seal_in_order_and_settle_the_total_in_reverse(tmp_path):
    log: list[str] = []
    guards = (Affine("first", 2.0, 0.0, log), Affine("second", 1.0, 8.0, log))
    algorithm = replace(fedavg(), guards=guards)
    guarded = Toy(tmp_path / "a").run(algorithm, until=1, policy=toy_policy(2))
    plain = Toy(tmp_path / "b").run(fedavg(), until=1, policy=toy_policy(2))
    assert log == ["seal first", "seal second"] * 2 + ["settle second", "settle first"]
    for name, value in last(plain).items():
        torch.testing.assert_close(last(guarded)[name], value, rtol=0, atol=1e-5)


@dataclass
class Marked:
    """Adds a tensor of its own to what travels and takes it off again where updates are added."""

    name: str
    late: bool
    log: list[str]

    def seal(self, update, asked, home):
        adapter = {**update.payload[ADAPTER], self.name: torch.full((2,), 5.0)}
        return replace(update, payload={ADAPTER: adapter}), {}

    def sealed(self, plain):
        return {ADAPTER: {**plain[ADAPTER], self.name: ((2,), torch.float32)}}

    def open(self, update, asked, plain):
        self.log.append(self.name)
        if update.client == "c1":
            raise Unfit("mark", "has another mark")
        adapter = dict(update.payload[ADAPTER])
        del adapter[self.name]
        assert spec(adapter) == plain[ADAPTER]
        return replace(update, payload={ADAPTER: adapter})

    def settle(self, total, asked):
        return total


@pytest.mark.parametrize("kind", ["inprocess", "hosted"])
def test_updates_are_opened_in_reverse_before_the_gate_as_far_as_no_guard_is_late(kind, tmp_path):
    log: list[str] = []
    marks = (Marked("inner", False, log), Marked("outer", False, log))
    everyone = toy_policy(1.0, minimum=1)
    algorithm = replace(fedavg(), guards=marks)
    [done] = Toy(tmp_path / "a", clients=2).run(algorithm, kind, until=1, policy=everyone)
    assert log == ["outer", "inner", "outer"]  # what could not be opened goes no further
    assert [(f.client, f.reason) for f in done.failures] == [("c1", "mark")]
    assert done.metrics.keys() == {"c0"}
    log.clear()
    algorithm = replace(fedavg(), guards=(Marked("inner", False, log), Marked("late", True, log)))
    total = combined(
        Toy(tmp_path / "b").engine(algorithm).ask(order()), ["c0"], order(), algorithm
    ).total
    assert log == []  # nor can what lies below a late guard be opened
    assert {"inner", "late"} < total.mean().keys()


def test_an_algorithm_that_names_the_adapter_among_its_further_roles_is_refused():
    class Greedy:
        roles = (ADAPTER,)

    with pytest.raises(InputError, match=r"algorithm greedy: .*'adapter'.*drop it"):
        replace(fedavg(), name="greedy", local=Greedy())


def test_the_optimizer_of_a_further_fit_is_forgotten():
    """A method that hands over a further fit as its own keeps nothing of that fit's memory."""

    class Twice:
        roles = ()

        def __call__(self, start, order, home, fit):
            return Work(fit(fit(start).fitted, again="more"))

    spy = Spy()
    _, home = answer(order(), "c0", Home(), spy, replace(fedavg(), local=Twice()))
    assert len(spy.seen) == 2
    assert home == Home()
