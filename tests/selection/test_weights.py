"""The master test: every cohort of a small population is enumerated, with its exact probability.

The samplers themselves make the members, fed by a generator that draws what it is told.
"""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain, combinations, product

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.core.messages import ADAPTER, Client, Member, Order, State, Update
from fedit.selection.samplers import Multinomial, Poisson, Uniform
from fedit.selection.weights import Renormalised, Unbiased, by_examples, by_tokens, equally

POPULATION = [
    Client(f"c{k}", n, t) for k, (n, t) in enumerate([(10, 7), (20, 1), (30, 90), (40, 2)])
]
P = [0.1, 0.2, 0.3, 0.4]


class Told:
    """A generator whose next draws are fixed."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def choice(self, total, size, replace):
        assert not replace
        return np.array(self.draws.pop(0))

    def multinomial(self, n, p):
        assert n == sum(self.draws[0])
        return np.array(self.draws.pop(0))

    def random(self, size):
        """Joins are told as a set of places: 0 is below every chance, 1 above."""
        joined = self.draws.pop(0)
        return np.array([0.0 if k in joined else 1.0 for k in range(size)])


def uniform(n: int) -> Iterator[tuple[float, list[Member]]]:
    for chosen in combinations(range(4), n):
        yield 1 / math.comb(4, n), Uniform(n)(POPULATION, Told(chosen))


def multinomial(n: int) -> Iterator[tuple[float, list[Member]]]:
    for sequence in product(range(4), repeat=n):
        counts = Counter(sequence)
        told = Told([counts[k] for k in range(4)])
        yield math.prod(P[k] for k in sequence), Multinomial(n)(POPULATION, told)


def poisson(n: int) -> Iterator[tuple[float, list[Member]]]:
    """Every subset but the empty one, which is told first and must be drawn again."""
    chances = [min(1.0, n * p) for p in P]
    some = 1 - math.prod(1 - c for c in chances)
    for joined in chain.from_iterable(combinations(range(4), size) for size in range(1, 5)):
        chance = math.prod(c if k in joined else 1 - c for k, c in enumerate(chances))
        if any(chances[k] == 1 for k in range(4) if k not in joined):
            continue
        yield chance / some, Poisson(n)(POPULATION, Told((), joined))


COHORTS = [(kind, n) for kind in (uniform, multinomial, poisson) for n in (1, 2, 3, 4)]
every_cohort = pytest.mark.parametrize(
    ("kind", "n"), COHORTS, ids=[f"{kind.__name__}-{n}" for kind, n in COHORTS]
)


@every_cohort
def test_the_enumeration_is_whole_and_expected_is_the_mean_of_draws(kind, n):
    assert math.fsum(chance for chance, _ in kind(n)) == pytest.approx(1, abs=1e-12)
    drawn, expected = Counter(), {}
    for chance, cohort in kind(n):
        for member in cohort:
            drawn[member.client.id] += chance * member.draws
            expected[member.client.id] = member.expected
    assert drawn == pytest.approx(expected, abs=1e-12)


@every_cohort
@pytest.mark.parametrize(
    ("measure", "cap", "wanted"),
    [
        (by_examples, None, P),
        (by_examples, 20, [1 / 7, 2 / 7, 2 / 7, 2 / 7]),
        (by_tokens, None, [0.07, 0.01, 0.9, 0.02]),
        (equally, None, [0.25] * 4),
    ],
)
def test_unbiased_weights_average_to_the_shares_exactly(kind, n, measure, cap, wanted):
    mean = dict.fromkeys((c.id for c in POPULATION), 0.0)
    for chance, cohort in kind(n):
        weights = Unbiased(measure, cap)(cohort, POPULATION)
        assert weights.pace == pytest.approx(sum(weights.by_client.values()), abs=1e-15)
        for client, weight in weights.by_client.items():
            mean[client] += chance * weight
    assert list(mean.values()) == pytest.approx(wanted, abs=1e-12)


@every_cohort
def test_on_average_the_server_makes_the_step_of_full_participation(kind, n):
    """E[w⁺] = w + Σ p_k (w_k − w): sampler, weights, mean and pace together."""
    start = torch.tensor([5.0, -1.0], dtype=torch.float64)
    fitted = {c.id: start + (k + 1) ** 2 for k, c in enumerate(POPULATION)}
    algorithm, names = fedavg(), frozenset("w")
    mean = torch.zeros(2, dtype=torch.float64)
    for chance, cohort in kind(n):
        weights = Unbiased(by_examples)(cohort, POPULATION)
        public = {ADAPTER: {"w": start}}
        order = Order(0, 0, 0, public, weights.by_client, names, names, weights.pace)
        total = algorithm.combine.start(order)
        for client in weights.by_client:
            update = Update(client, 0, 0, {ADAPTER: {"w": fitted[client]}})
            total = algorithm.combine.add(total, update, order)
        mean += chance * algorithm.server.step(State(0, public), total, order).adapter["w"]
    wanted = sum(p * fitted[c.id] for p, c in zip(P, POPULATION, strict=True))
    torch.testing.assert_close(mean, wanted, rtol=0, atol=1e-12)


def test_the_usual_weights_are_biased_under_uniform_sampling():
    """Known and documented: two of four, renormalised by size."""
    mean = dict.fromkeys((c.id for c in POPULATION), 0.0)
    for chance, cohort in uniform(2):
        weights = Renormalised(by_examples)(cohort, POPULATION).by_client
        for client, weight in weights.items():
            mean[client] += chance * weight / sum(weights.values())
    assert [round(weight, 3) for weight in mean.values()] == [0.131, 0.233, 0.296, 0.340]


def test_renormalised_weights_by_hand():
    cohort = [Member(POPULATION[0], 2, 0.2), Member(POPULATION[3], 1, 0.8)]
    told = Renormalised(by_examples)(cohort, POPULATION)
    assert told.by_client == {"c0": 20.0, "c3": 40.0}
    assert told.pace == 1.0
    assert Renormalised(by_tokens)(cohort, POPULATION).by_client == {"c0": 14.0, "c3": 2.0}
    assert Renormalised(equally)(cohort, POPULATION).by_client == {"c0": 2.0, "c3": 1.0}


def test_a_cap_bounds_what_size_can_buy():
    giant = [*POPULATION, Client("giant", 10**9, 10**9)]
    cohort = [Member(client) for client in giant]
    weights = Renormalised(by_examples, 40)(cohort, giant).by_client
    assert weights == {"c0": 10.0, "c1": 20.0, "c2": 30.0, "c3": 40.0, "giant": 40.0}
    uncapped = Renormalised(by_examples)(cohort, giant).by_client
    assert uncapped["giant"] / sum(uncapped.values()) > 0.999


def test_a_cap_counts_draws_not_the_drawn():
    """Drawn twice weighs twice, cap or not."""
    cohort = [Member(POPULATION[3], 2, 0.8)]
    assert Renormalised(by_examples, 15)(cohort, POPULATION).by_client == {"c3": 30.0}
