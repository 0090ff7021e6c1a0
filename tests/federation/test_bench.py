"""Who breaks jobs rests: not for a fault or two, then longer each time."""

import pytest

from fedit.federation import bench as module
from fedit.federation.bench import Bench


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_faults_soon_after_each_other_cost_ever_longer_rests(clock):
    bench, rests = Bench(), []
    for _ in range(9):
        rests.append(bench.blame("north"))
        assert bench.resting() == ({"north"} if rests[-1] else set())
        clock[0] += rests[-1] + 1
        assert bench.resting() == set()
    assert rests == [0, 0, 600, 1200, 2400, 4800, 9600, 14400, 14400]
    assert bench.blame("east") == 0


def test_ten_good_minutes_wipe_the_slate(clock):
    bench = Bench()
    for _ in range(5):
        assert bench.blame("north") == 0
        clock[0] += 601


def test_nobody_is_blamed_for_what_befalls_all(clock):
    """The server's own job has died, or its machine is too busy: nobody would be left to go on with."""
    bench, members = Bench(), {"east", "north", "south"}
    for _ in range(9):
        assert bench.judge(members | {"west"}, members) == {}
    assert bench.judge({"north"}, {"north"}) == {}
    assert bench.judge(set(), set()) == {}
    assert bench.resting() == set()


def test_who_is_missing_alone_is_blamed_but_not_who_came_since(clock):
    bench, members = Bench(), {"east", "north", "south"}
    said = [bench.judge({"north", "west"}, members) for _ in range(3)]
    assert said == [{"north": 0}, {"north": 0}, {"north": 600}]
    assert bench.resting() == {"north"}
