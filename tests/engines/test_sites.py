"""Sites over a line that is only played: the same bits as in process, and what becomes of every fault."""

import json
import time
from collections import deque

import pytest

pytest.importorskip("cryptography", reason="needs the extra federation")

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.scaffold import scaffold
from fedit.core.errors import FeditError
from fedit.core.rounds import rounds
from fedit.core.tree import same
from fedit.engines import sites as module
from fedit.engines.keys import new_key
from fedit.engines.ledger import Post
from fedit.engines.line import News
from fedit.engines.messages import pack_update, unpack_order
from fedit.engines.said import undone
from fedit.engines.sealed import (
    ENROLMENT,
    FAILURE,
    INVITATION,
    UPDATE,
    Terms,
    read_label,
)
from fedit.engines.sites import Sites
from tests.tiny import finish, tiny
from tests.toy import Toy, last, toy_policy, tree

TERMS = Terms("0" * 32, "a" * 64, "b" * 64)
SERVER = new_key()
EVERYONE = toy_policy(1.0, minimum=1)


class Site:
    """A site's worker: answers what is signed for it, as the toy's clients do."""

    def __init__(self, name: str, engine, counts: dict):
        self.name, self.engine, self.counts = name, engine, counts
        self.key, self.invited, self.orders = new_key(), False, 0

    def answer(self, message: bytes) -> bytes | None:
        post = Post(TERMS, self.name, self.key, SERVER.public_key())
        if read_label(message)[0].kind == INVITATION:
            label, _ = post.take(message, INVITATION)
            self.invited = True
            return self.sealed(post, label, ENROLMENT, json.dumps(self.counts).encode())
        label, payload = post.take(message)
        if not self.invited:
            return self.failure(post, label, "not invited")
        self.orders += 1
        forgotten, block = undone(payload)
        order = unpack_order(block)
        for round in forgotten:
            self.engine.homes.take_back([self.name], round)
        self.engine.homes.rewind(order.round)
        reply = self.engine.reply(order, self.name, len(block))
        self.engine.homes.flush()
        return self.sealed(post, label, UPDATE, pack_update(reply))

    def sealed(self, post, label, kind, content):
        return post.seal(label, content, kind=kind)

    def failure(self, post, label, reason, detail=""):
        said = json.dumps({"reason": reason, "detail": detail}).encode()
        return self.sealed(post, label, FAILURE, said)


class Line:
    """Carries messages within this process; what a site does not answer is lost."""

    def __init__(self, all_sites):
        self.sites, self.news = {site.name: site for site in all_sites}, deque()
        self.absent, self.closed = set(), False

    def present(self):
        return frozenset(self.sites) - self.absent

    def post(self, site, number, message, seconds):
        answer = self.sites[site].answer(message)
        if answer != b"never":
            self.news.append(News(site, number, answer, "broke", worker=answer is None))

    def next(self, seconds):
        return self.news.popleft() if self.news else None

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    for name, seconds in (("_PAUSE", 0.0), ("_ABSENT", 0.05)):
        monkeypatch.setattr(module, name, seconds)


def network(toy: Toy, algorithm, deadline=20.0, **changes):
    """A line to sites, one a client, each with homes of its own, and the engine over it."""
    kinds = changes.pop("kinds", {})
    made = [
        kinds.get(c.id, Site)(
            c.id,
            toy.engine(algorithm, place=f"home-{c.id}"),
            {"examples": c.examples, "tokens": c.tokens},
        )
        for c in toy.population
    ]
    line, told = Line(made), []
    keys = {site.name: site.key.public_key() for site in made}
    tell = changes.pop("tell", lambda site, what: told.append((site, what)))
    engine = Sites(line, TERMS, {"any": "recipe"}, SERVER, keys, deadline, tell=tell, **changes)
    engine.algorithm = algorithm
    return engine, line, told


@pytest.mark.parametrize("algorithm", [fedavg(), scaffold(6)], ids=lambda a: a.name)
def test_sites_give_the_bits_of_one_process(algorithm, tmp_path):
    toy = Toy(tmp_path, keep=True)
    expected = toy.run(algorithm, policy=EVERYONE, until=4)
    engine, line, _ = network(toy, algorithm)
    engine.gather(20.0, 6, 20.0)
    assert engine.clients() == toy.population
    found = toy.run(algorithm, engine=engine, policy=EVERYONE, until=4)
    assert same(last(found), last(expected))
    assert [one.failures for one in found] == [[]] * 4
    engine.close()
    assert line.closed


class Silent(Site):
    """Never answers an order."""

    def answer(self, message):
        order = read_label(message)[0].kind not in (INVITATION,)
        return b"never" if order else super().answer(message)


class Dying(Site):
    """Its worker dies of every order."""

    def answer(self, message):
        if read_label(message)[0].kind == INVITATION:
            return super().answer(message)
        self.orders += 1
        return None


class Forgetful(Site):
    """Its worker is new in every round: it has to be invited again."""

    def answer(self, message):
        found = super().answer(message)
        if read_label(message)[0].kind != INVITATION and self.orders:
            self.invited, self.orders = False, 0
        return found


class Clumsy(Site):
    """Says that its disk is full."""

    def answer(self, message):
        post = Post(TERMS, self.name, self.key, SERVER.public_key())
        if read_label(message)[0].kind == INVITATION:
            return super().answer(message)
        return self.failure(post, post.take(message)[0], "error", "no space\x1b[2J left")


class Replaying(Site):
    """Answers every order with its first update."""

    first = b""

    def answer(self, message):
        if read_label(message)[0].kind == INVITATION:
            return super().answer(message)
        self.first = self.first or super().answer(message)
        return self.first


class Foreign(Site):
    """Signs with a key that is not its own."""

    def answer(self, message):
        if read_label(message)[0].kind != INVITATION:
            self.key = new_key()
        return super().answer(message)


@pytest.mark.parametrize(
    ("kind", "reason", "detail"),
    [
        (Silent, "deadline", "no update within"),
        (Dying, "worker", "died 4 times"),
        (Clumsy, "error", r"no space\x1b[2J left"),
        (Foreign, "signature", "is not one of this label"),
    ],
)
def test_one_sites_fault_is_its_own(kind, reason, detail, tmp_path):
    toy = Toy(tmp_path, clients=3)
    deadline = 0.5 if kind is Silent else 20.0
    engine, _line, _ = network(toy, fedavg(), deadline, kinds={"c1": kind})
    engine.gather(20.0, 3, 20.0)
    for one in toy.run(fedavg(), engine=engine, policy=EVERYONE, until=2):
        assert set(one.metrics) == {"c0", "c2"}
        [failure] = one.failures
        assert (failure.client, failure.reason) == ("c1", reason)
        assert detail in failure.detail
        assert "\x1b" not in failure.detail


def test_a_recorded_update_is_worth_nothing(tmp_path):
    toy = Toy(tmp_path, clients=2)
    engine, *_ = network(toy, fedavg(), kinds={"c1": Replaying})
    engine.gather(20.0, 2, 20.0)
    first, second = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=2)
    assert first.failures == []
    assert [(f.client, f.reason) for f in second.failures] == [("c1", "stale")]


def test_a_worker_that_is_new_is_invited_again(tmp_path):
    toy = Toy(tmp_path, clients=3)
    expected = toy.run(fedavg(), policy=EVERYONE, until=3)
    engine, _line, _ = network(toy, fedavg(), kinds={"c2": Forgetful})
    engine.gather(20.0, 3, 20.0)
    found = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=3)
    assert same(last(found), last(expected))


def test_a_site_that_is_away_is_left_out_and_comes_back(tmp_path):
    toy = Toy(tmp_path, clients=3)
    engine, line, _ = network(toy, fedavg())
    engine.gather(20.0, 3, 20.0)
    line.absent = {"c0"}
    [one] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=1)
    assert [(f.client, f.reason) for f in one.failures] == [("c0", "gone")]
    line.absent = set()
    [two] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=2, state=one.state)
    assert two.failures == []


def test_nobody_is_left_out_while_the_line_is_mended(tmp_path, monkeypatch):
    toy = Toy(tmp_path, clients=3)
    engine, line, _ = network(toy, fedavg())
    engine.gather(20.0, 3, 20.0)
    back, usual = time.monotonic() + 4 * module._ABSENT, line.present
    monkeypatch.setattr(
        line, "present", lambda: usual() if time.monotonic() > back else frozenset()
    )
    [one] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=1)
    assert (one.failures, time.monotonic() > back) == ([], True)


def test_a_site_that_comes_late_takes_part_from_then_on(tmp_path):
    toy = Toy(tmp_path)
    engine, line, told = network(toy, fedavg())
    kept = []
    line.absent = {"c1"}
    engine.gather(0.01, len(toy.population) - 1, 20.0)  # all the others
    engine.keep = lambda: kept.append(set(engine.enrolled))
    policy, seen = toy_policy(1.0, minimum=1), []
    for one in rounds(fedavg().server.init(tree(1)), fedavg(), engine, policy, seed=0, until=6):
        seen.append(set(one.order.cohort))
        if one.state.round == 2:
            line.absent = set()
    assert all("c1" not in cohort for cohort in seen[:2])
    assert "c1" in seen[-1]
    assert kept == [{c.id for c in toy.population}]
    assert told.count(("c1", told[-1][1])) == 1


class Slow(Site):
    """Loads its model while others go on: its enrolment answers an invitation of an earlier round."""

    held = b""

    def answer(self, message):
        if self.held or read_label(message)[0].kind != INVITATION:
            return super().answer(message)
        self.held = super().answer(message)
        return b"never"


def test_an_enrolment_may_come_rounds_after_its_invitation(tmp_path):
    toy = Toy(tmp_path)
    engine, line, _ = network(toy, fedavg(), kinds={"c1": Slow})
    line.absent = {"c1"}
    engine.gather(0.01, 2, 1.0)
    line.absent = set()
    policy, seen, posted, post = toy_policy(1.0, minimum=1), [], [], line.post
    line.post = lambda site, number, *rest: (
        posted.append((site, number)),
        post(site, number, *rest),
    )
    for one in rounds(fedavg().server.init(tree(1)), fedavg(), engine, policy, seed=0, until=6):
        seen.append(set(one.order.cohort))
        if one.state.round == 3:
            number = next(n for site, n in posted if site == "c1")
            line.news.appendleft(News("c1", number, line.sites["c1"].held))
    assert [site for site, _ in posted].count("c1") == 1 + sum("c1" in cohort for cohort in seen)
    assert all("c1" not in cohort for cohort in seen[:4])
    assert "c1" in seen[-1]
    assert not engine.refused


class Choosy(Site):
    """Its policy refuses invitations until it has been away."""

    allows = False

    def answer(self, message):
        label = read_label(message)[0]
        if label.kind == INVITATION and not self.allows:
            post = Post(TERMS, self.name, self.key, SERVER.public_key())
            label, _ = post.take(message, INVITATION)
            return self.failure(post, label, "refused", "steps: 2, the site allows 1")
        return super().answer(message)


def test_a_site_that_refused_is_asked_again_when_it_comes_back(tmp_path):
    toy = Toy(tmp_path)
    engine, line, _ = network(toy, fedavg(), kinds={"c1": Choosy})
    engine.gather(0.5, 2, 1.0)
    assert engine.refused == {"c1": "'steps: 2, the site allows 1'"}
    policy, seen = toy_policy(1.0, minimum=1), []
    for one in rounds(fedavg().server.init(tree(1)), fedavg(), engine, policy, seed=0, until=8):
        seen.append(set(one.order.cohort))
        line.absent = {"c1"} if one.state.round == 2 else set()
        line.sites["c1"].allows = one.state.round > 2
    assert all("c1" not in cohort for cohort in seen[:3])
    assert "c1" in seen[-1]


def test_a_refused_update_is_undone_at_the_site_with_its_next_order(tmp_path):
    toy = Toy(tmp_path, clients=2)
    method = scaffold(2)
    engine, line, _ = network(toy, method)
    engine.gather(1.0, 2, 1.0)
    [one] = toy.run(method, engine=engine, policy=EVERYONE, until=1)
    kept = []
    engine.keep = lambda: kept.append(dict(engine.undo))
    engine.take_back(one.order, ["c1"])
    assert kept == [{"c1": [1]}]
    home = line.sites["c1"].engine.homes
    assert home.load("c1", 1).payload
    line.absent = {"c0"}
    toy.run(method, engine=engine, policy=EVERYONE, until=2, state=one.state)
    assert not (home.folder / "c1" / "00000001.home").exists()
    assert home.load("c1", 2).payload


class Amnesiac(Site):
    """Says that it was never invited, whenever it is asked."""

    def answer(self, message):
        self.invited = False
        return super().answer(message)


def test_a_site_that_forgets_its_invitations_is_left_out(tmp_path):
    toy = Toy(tmp_path, clients=3)
    engine, _, told = network(toy, fedavg(), deadline=60, kinds={"c1": Amnesiac})
    engine.gather(20.0, 3, 20.0)
    [one] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=1)
    [failure] = one.failures
    assert (failure.client, failure.detail) == ("c1", module._FORGETS)
    assert sum(site == "c1" for site, _ in told) == 1 + module.TRIES


def test_counts_that_are_withheld_are_refused_where_they_weigh(tmp_path):
    toy = Toy(tmp_path, clients=2)
    engine, line, _told = network(toy, fedavg())
    line.sites["c0"].counts = {"examples": None, "tokens": None}
    engine.gather(5.0, 1, 5.0)
    assert "withholds its counts" in engine.refused["c0"]
    assert [c.id for c in engine.clients()] == ["c1"]
    [one] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=1)
    assert one.failures == []
    alike, line, _ = network(toy, fedavg(), counted=False)
    line.sites["c0"].counts = {"examples": None, "tokens": None}
    alike.gather(1.0, 2, 1.0)
    assert [(c.id, c.examples) for c in alike.clients()] == [("c0", 1), ("c1", 17)]


@pytest.mark.parametrize("counts", [{}, {"examples": True}, {"examples": -1, "tokens": 1}, []])
def test_odd_counts_are_refused(counts, tmp_path):
    toy = Toy(tmp_path, clients=2)
    engine, line, _ = network(toy, fedavg())
    line.sites["c0"].counts = counts
    engine.gather(5.0, 1, 5.0)
    assert set(engine.refused) == {"c0"}


def test_a_method_that_counts_its_clients_takes_no_more(tmp_path):
    toy = Toy(tmp_path, clients=3)
    engine, line, _ = network(toy, scaffold(2))
    line.absent = {"c2"}
    engine.gather(0.1, 2, 5.0)
    engine.only = frozenset(engine.enrolled)
    line.absent = set()
    [one] = toy.run(scaffold(2), engine=engine, policy=EVERYONE, until=1)
    assert set(one.metrics) == {"c0", "c1"}
    engine.only = None
    engine.gather(5.0, 3, 5.0)
    assert [c.id for c in engine.clients()] == ["c0", "c1", "c2"]


def test_too_few_sites_end_with_who_is_missing(tmp_path):
    engine, line, _ = network(Toy(tmp_path, clients=3), fedavg())
    line.absent = {"c0", "c2"}
    said = r"1 of 3 have enrolled, federation\.minimum needs 2; absent: c0, c2"
    with pytest.raises(FeditError, match=said):
        engine.gather(0.1, 2, 0.3)


def test_an_answer_to_nobodys_question_is_passed_over(tmp_path):
    toy = Toy(tmp_path, clients=2)
    engine, line, _ = network(toy, fedavg())
    engine.gather(1.0, 2, 1.0)
    line.news.extend([News("c0", 10**6, b"x" * 500), News("nobody", 3, b"x")])
    [one] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=1)
    assert one.failures == []


def test_fedit_run_trains_a_networks_recipe_in_process(tmp_path):
    plain = finish(tiny(tmp_path / "plain"))
    assert finish(tiny(tmp_path / "sites", engine={"kind": "sites", "deadline": 5})) == plain


def test_who_was_invited_as_late_and_is_of_the_next_cohort_has_not_refused(tmp_path):
    """It loads its model when it is drawn, so that it is invited twice; the second invitation counts."""
    toy = Toy(tmp_path, clients=3)
    engine, line, _ = network(toy, fedavg(), deadline=5.0, kinds={"c1": Slow})
    line.absent = {"c1"}
    engine.gather(0.01, 2, 1.0)
    line.absent = set()
    numbers, post = [], line.post

    def noted(site, number, *rest):
        numbers.extend([number] * (site == "c1"))
        post(site, number, *rest)

    line.post = noted
    [one] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=1)
    engine.enrolled["c1"] = toy.population[1]  # as before the server was started again
    line.news.append(News("c1", numbers[0], line.sites["c1"].held))
    [two] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=2, state=one.state)
    assert (two.failures, engine.refused) == ([], {})
    assert set(two.metrics) == {"c0", "c1", "c2"}


def test_an_invitation_that_is_lost_is_sent_again_after_a_pause(tmp_path, monkeypatch):
    """A carrier that fails at once must not have the server invite as fast as it can."""
    monkeypatch.setattr(module, "_PAUSE", 0.2)
    engine, line, told = network(Toy(tmp_path, clients=2), fedavg())
    line.sites["c1"].answer = lambda message: None
    with pytest.raises(FeditError, match="1 of 2 have enrolled"):
        engine.gather(0.1, 2, 0.5)
    assert 1 < sum(site == "c1" for site, _ in told) < 5


def test_a_site_that_refused_may_come_back_before_the_first_round(tmp_path):
    engine, line, _ = network(Toy(tmp_path, clients=3), fedavg(), kinds={"c1": Choosy})

    def present():
        if engine.refused:  # it goes, to come back with another policy
            line.sites["c1"].allows = True
            return frozenset({"c0"})
        return frozenset({"c0", "c1"})

    line.present = present
    engine.gather(0.1, 2, 5.0)
    assert set(engine.enrolled) == {"c0", "c1"}
    assert line.sites["c1"].allows
