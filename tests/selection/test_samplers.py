from collections import Counter

import numpy as np
import pytest

from fedit.core.messages import Client
from fedit.core.seeds import generator
from fedit.selection.samplers import Multinomial, Poisson, Uniform, example_shares

POPULATION = [Client(f"c{k}", n, n) for k, n in enumerate((10, 20, 30, 40))]
SAMPLERS = {"uniform": Uniform, "multinomial": Multinomial, "poisson": Poisson}
every = pytest.mark.parametrize("kind", SAMPLERS.values(), ids=SAMPLERS.keys())

every_size = pytest.mark.parametrize("cohort", [1, 2, 3, 0.5, 1.0])
ROUNDS = 4000


@every
@every_size
def test_members_are_drawn_as_often_as_the_sampler_says(kind, cohort):
    """|frequency − expected| within five standard errors, for every client."""
    rng, draws, expected = generator(0, "test"), Counter(), {}
    for _ in range(ROUNDS):
        for member in kind(cohort)(POPULATION, rng):
            draws[member.client.id] += member.draws
            expected[member.client.id] = member.expected
    assert expected.keys() == {c.id for c in POPULATION}
    for client, wanted in expected.items():
        tolerance = 5 * (wanted / ROUNDS) ** 0.5
        assert draws[client] / ROUNDS == pytest.approx(wanted, abs=tolerance), client


@every
def test_the_same_stream_draws_the_same_cohort_and_another_another(kind):
    many = [Client(f"c{k}", 1 + k, 1) for k in range(50)]
    one, again, other = (kind(10)(many, generator(seed, "cohort")) for seed in (0, 0, 1))
    assert one == again
    assert one != other


@every
def test_cohorts_follow_the_populations_order_and_name_nobody_twice(kind):
    rng, place = generator(1), {c.id: k for k, c in enumerate(POPULATION)}
    for _ in range(50):
        places = [place[member.client.id] for member in kind(3)(POPULATION, rng)]
        assert places
        assert places == sorted(set(places))


@pytest.mark.parametrize(
    ("cohort", "size"), [(1, 1), (3, 3), (9, 4), (0.29, 1), (0.5, 2), (1.0, 4)]
)
def test_uniform_cohorts_have_the_size_asked_for(cohort, size):
    rng = generator(2)
    for _ in range(20):
        members = Uniform(cohort)(POPULATION, rng)
        assert len(members) == size
        assert all((m.draws, m.expected) == (1, size / 4) for m in members)


def test_multinomial_draws_add_up_to_the_cohort():
    rng, sizes = generator(3), set()
    for _ in range(50):
        members = Multinomial(3)(POPULATION, rng)
        assert sum(m.draws for m in members) == 3
        assert all(m.draws > 0 for m in members)
        sizes.add(len(members))
    assert len(sizes) > 1  # with replacement: a client may be drawn twice


def test_poisson_cohorts_are_never_empty_and_vary_in_size():
    rng = generator(4)
    sizes = Counter(len(Poisson(1)(POPULATION, rng)) for _ in range(300))
    assert 0 not in sizes
    assert len(sizes) > 1


def test_a_client_that_would_join_more_than_once_joins_for_sure():
    rng, giant = generator(5), [Client("giant", 90, 1), Client("dwarf", 10, 1)]
    for _ in range(50):
        first = Poisson(2)(giant, rng)[0]
        assert (first.client.id, first.expected) == ("giant", 1.0)


def test_shares_are_those_of_the_examples():
    np.testing.assert_allclose(example_shares(POPULATION), [0.1, 0.2, 0.3, 0.4], rtol=1e-15)
