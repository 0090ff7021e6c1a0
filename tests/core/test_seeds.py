import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedit.core.seeds import generator, stream


def test_streams_are_the_same_on_every_machine():
    assert stream(0, "cohort", 3) == 1940773744370067784
    assert generator(7, "cohort", 0).integers(0, 10**6, 3).tolist() == [257965, 247560, 514241]


def test_seed_purpose_and_each_part_of_it_matter():
    streams = {
        stream(seed, name, round, attempt)
        for seed in range(5)
        for name in ("cohort", "dropout")
        for round in range(10)
        for attempt in range(3)
    }
    assert len(streams) == 5 * 2 * 10 * 3


def test_the_run_seed_is_not_the_round_number():
    """Peers seed the cohort by the round alone, so that every run draws the same clients."""
    assert stream(1, 2) != stream(2, 1)
    assert stream(1, "a", 23) != stream(1, "a", 2, 3) != stream(12, "a", 3)


@given(st.integers(0), st.lists(st.text() | st.integers(), max_size=3))
def test_a_stream_fits_every_generator(seed, names):
    names = [n.encode(errors="replace").decode() if isinstance(n, str) else n for n in names]
    assert 0 <= stream(seed, *names) < 2**63


def test_drawing_for_one_purpose_never_shifts_another():
    alone = generator(0, "b").random(4)
    generator(0, "a").random(1000)
    assert np.array_equal(alone, generator(0, "b").random(4))
