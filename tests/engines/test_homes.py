from itertools import product

import pytest
import torch

from fedit.core.messages import Home
from fedit.engines.homes import GENERATIONS, Homes

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
