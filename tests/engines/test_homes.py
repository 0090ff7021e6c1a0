from itertools import product
from pathlib import Path

import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.scaffold import scaffold
from fedit.core.messages import Home
from fedit.core.norms import Bounds
from fedit.engines import homes as module
from fedit.engines.homes import GENERATIONS, Homes
from tests.toy import Toy, toy_policy

ROUNDS = 7


def home(value: float) -> Home:
    return Home({"kept": {"b": torch.tensor([float(value)])}})


def value(found: Home) -> float | None:
    return found.payload["kept"]["b"].item() if found.payload else None


def test_a_client_that_keeps_nothing_leaves_no_file(tmp_path):
    homes = Homes(tmp_path / "homes")
    homes.save("c0", 1, Home())
    assert homes.load("c0", 1) == Home()
    assert not (tmp_path / "homes").exists()


def test_a_home_is_the_one_of_its_round(tmp_path):
    homes = Homes(tmp_path)
    homes.save("c0", 1, home(1))
    homes.save("c0", 3, home(3))
    homes.save("c1", 2, home(2))
    assert [value(homes.load("c0", round)) for round in range(5)] == [None, 1, 1, 3, 3]
    assert [value(homes.load("c1", round)) for round in range(3)] == [None, None, 2]


def test_a_home_that_became_empty_stays_empty(tmp_path):
    homes = Homes(tmp_path)
    homes.save("c0", 1, home(1))
    homes.save("c0", 2, Home())
    assert homes.load("c0", 2) == Home()
    assert value(homes.load("c0", 1)) == 1


def test_a_client_does_not_see_what_it_wrote_in_a_round_that_was_lost(tmp_path):
    homes = Homes(tmp_path)
    homes.save("c0", 1, home(1))
    homes.save("c0", 2, home(2))
    assert value(homes.load("c0", 1)) == 1
    homes.save("c0", 2, home(20))
    assert value(homes.load("c0", 2)) == 20


def test_pruning_never_takes_what_a_kept_checkpoint_needs(tmp_path):
    """For every way a client can take part: at every moment, every checkpoint still on disk is served."""
    for pattern in product([False, True], repeat=ROUNDS):
        homes, truth = Homes(tmp_path / str(pattern)), {0: None}
        for round, takes_part in enumerate(pattern, start=1):
            truth[round] = truth[round - 1]
            if takes_part:
                homes.save("c0", round, home(round))
                truth[round] = round
            # killed before the checkpoint of this round is written, or after
            for kept in range(max(0, round - GENERATIONS), round + 1):
                assert value(homes.load("c0", kept)) == truth[kept], (pattern, round, kept)
        assert len(list(homes.folder.glob("c0/*"))) <= GENERATIONS + 1


@pytest.mark.parametrize("back", range(GENERATIONS + 1))
def test_after_a_rewind_another_course_of_rounds_is_not_disturbed_by_the_old_one(back, tmp_path):
    for lost, new in product(product([False, True], repeat=3), repeat=2):
        homes, truth = Homes(tmp_path / f"{lost}-{new}"), {0: None}
        for round in range(1, 5):
            homes.save("c0", round, home(round))
            truth[round] = round
        for round, takes_part in enumerate(lost, start=5):
            if takes_part:
                homes.save("c0", round, home(-round))
        # the newest lost round has no checkpoint; the oldest still kept are those before it
        start = max(4, 4 + max((i for i, t in enumerate(lost, 1) if t), default=0) - back)
        for round in range(5, start + 1):
            truth[round] = -round if lost[round - 5] else truth[round - 1]
        homes.rewind(start)
        for round, takes_part in enumerate(new, start=start + 1):
            truth[round] = truth[round - 1]
            if takes_part:
                homes.save("c0", round, home(100 + round))
                truth[round] = 100 + round
            assert value(homes.load("c0", round)) == truth[round], (lost, new, round)


def test_a_rewind_reaches_every_client_and_spares_what_is_not_newer(tmp_path):
    homes = Homes(tmp_path / "homes")
    homes.rewind(0)
    for client in ("c0", "c1"):
        for round in (1, 2, 3):
            homes.save(client, round, home(round))
    homes.rewind(2)
    assert [value(homes.load(c, 9)) for c in ("c0", "c1")] == [2, 2]


def test_a_rewind_looks_at_every_home_once_and_then_at_those_saved_since(tmp_path, monkeypatch):
    old = Homes(tmp_path / "homes")
    for number in range(9):
        old.save(f"c{number}", 3, home(3))
    homes, looks = Homes(old.folder), []
    real = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, how: looks.append(how) or real(self, how))
    homes.rewind(2)  # a crash after round 3
    assert len(looks) == 1
    assert not any(homes.load(f"c{number}", 9).payload for number in range(9))
    for round in (2, 2, 3):  # its second attempt, and the round after
        homes.rewind(round)
        homes.save("c0", round + 1, home(round + 1))
        assert value(homes.load("c0", 9)) == round + 1
    assert len(looks) == 1
    homes.rewind(1)
    assert len(looks) == 2, "further back than it remembers"
    assert value(homes.load("c0", 9)) is None


def test_all_that_was_saved_is_forced_to_disk_before_the_round_counts(tmp_path, monkeypatch):
    homes, forced = Homes(tmp_path / "homes"), []
    monkeypatch.setattr(module, "flush", lambda paths: forced.append(set(paths)))
    homes.rewind(0)
    homes.flush()
    homes.save("c0", 1, home(1))
    homes.save("c1", 1, home(1))
    homes.save("c2", 1, Home())
    homes.flush()
    files = {homes.folder / client / "00000001.home" for client in ("c0", "c1")}
    assert forced[0] == set()
    assert forced[1] == files | {path.parent for path in files} | {homes.folder}


def test_the_engine_forces_homes_to_disk_after_the_last_reply(tmp_path, monkeypatch):
    toy = Toy(tmp_path, keep=True)
    events = []
    for name in ("save", "flush"):
        real = getattr(Homes, name)
        monkeypatch.setattr(
            Homes,
            name,
            lambda self, *a, real=real, name=name: events.append(name) or real(self, *a),
        )
    toy.run(fedavg(), until=2)
    assert events == (["save"] * 3 + ["flush"]) * 2


def test_what_is_taken_back_is_one_rounds_and_gone_for_good(tmp_path, monkeypatch):
    homes, forced = Homes(tmp_path / "homes"), []
    for client in ("c0", "c1"):
        for round in (1, 2):
            homes.save(client, round, home(round))
    monkeypatch.setattr(module, "flush", lambda paths: forced.extend(paths))
    homes.take_back(["c0", "c9"], 2)
    assert [value(homes.load(c, 2)) for c in ("c0", "c1", "c9")] == [1, 2, None]
    assert forced == [homes.folder / "c0"], "a power cut must not bring it back"
    assert not (homes.folder / "c9").exists()


@pytest.mark.parametrize("kind", ["inprocess", "loopback", "hosted"])
@pytest.mark.parametrize("groups", [32, 2])
def test_scaffolds_control_stays_the_mean_of_its_clients_where_updates_are_refused(
    kind, groups, tmp_path, monkeypatch
):
    """c = Σ c_i / N over all clients, after rounds in which some were refused by their norm."""
    monkeypatch.setattr("fedit.core.shares.GROUPS", groups)
    toy = Toy(tmp_path)
    policy = toy_policy(4, minimum=1, bounds=Bounds(norm=2.4))
    done = toy.run(scaffold(6), kind, policy=policy, until=6)
    refused = [failure for one in done for failure in one.failures]
    assert {str(failure.reason) for failure in refused} == {"norm"}
    homes = Homes(tmp_path / kind)
    kept = [homes.load(client.id, 6).payload.get("control", {}) for client in toy.population]
    for name, c in done[-1].state.public["control"].items():
        each = [one.get(name, torch.zeros_like(c)).double() for one in kept]
        torch.testing.assert_close(c.double(), sum(each) / 6, rtol=1e-5, atol=1e-6)
    assert any(kept)
