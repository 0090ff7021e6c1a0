"""Cohort samplers: each says how often a client was drawn and how often it is drawn on average."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedit.core.amounts import part_of
from fedit.core.messages import Client, Member


@dataclass(frozen=True, slots=True)
class Uniform:
    """n of N clients without replacement, each with the same chance: π = n/N."""

    cohort: int | float

    def __call__(self, population: Sequence[Client], rng: np.random.Generator) -> list[Member]:
        n, total = part_of(self.cohort, len(population)), len(population)
        chosen = sorted(rng.choice(total, size=n, replace=False).tolist())
        return [Member(population[i], 1, n / total) for i in chosen]


@dataclass(frozen=True, slots=True)
class Multinomial:
    """n draws with replacement, proportional to the clients' examples: n·p_k draws on average."""

    cohort: int | float

    def __call__(self, population: Sequence[Client], rng: np.random.Generator) -> list[Member]:
        n = part_of(self.cohort, len(population))
        p = example_shares(population)
        draws = rng.multinomial(n, p)
        drawn = np.flatnonzero(draws).tolist()
        return [Member(population[i], int(draws[i]), n * float(p[i])) for i in drawn]


@dataclass(frozen=True, slots=True)
class Poisson:
    """Every client joins by itself with π_k = min(1, n·p_k); an empty cohort is drawn again.

    The redraw is part of the average: E[draws_k] = π_k / (1 − Π(1 − π_j)).
    """

    cohort: int | float

    def __call__(self, population: Sequence[Client], rng: np.random.Generator) -> list[Member]:
        n = part_of(self.cohort, len(population))
        chances = np.minimum(1.0, n * example_shares(population))
        some = 1.0 - float(np.prod(1.0 - chances))
        while True:
            joins = rng.random(len(population)) < chances
            if joins.any():
                break
        joined = np.flatnonzero(joins).tolist()
        return [Member(population[i], 1, float(chances[i]) / some) for i in joined]


def example_shares(population: Sequence[Client]) -> npt.NDArray[np.float64]:
    """p_k = n_k / Σ n over the population, in fp64."""
    sizes = np.array([client.examples for client in population], dtype=np.float64)
    shares: npt.NDArray[np.float64] = sizes / sizes.sum()
    return shares
