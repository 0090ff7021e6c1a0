"""The toy's federation worked out by hand: adapters as vectors in float64, methods from their papers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedit.core.rounds import Policy, Round
from fedit.core.seats import Algorithm
from fedit.core.tree import Tree, scale
from fedit.engines.homes import Homes
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Unbiased, by_examples
from tests import toy as toys
from tests.toy import RATE, STEPS, Toy, ToyTrainer, toy_policy, tree

Vector = NDArray[np.float64]


def vector(of: Tree) -> Vector:
    """All numbers of a tree, by the order of its names."""
    return np.concatenate([of[name].double().numpy().ravel() for name in sorted(of)])


START = vector(tree(1))
A = slice(0, tree(1)["layer.lora_A"].numel())
B = slice(A.stop, None)
PAIR = toy_policy(2)  # two clients of four take part
UNBIASED = Policy(Uniform(2), Unbiased(by_examples))


def close(found: Tree, wanted: Vector, slack: float = 3e-6) -> None:
    """A tree in fp32 is that vector, up to rounding."""
    np.testing.assert_allclose(vector(found), wanted, rtol=slack, atol=slack)


def mean_at_home(toy: Toy, role: str, rounds: int, place: str = "inprocess") -> Vector:
    """The mean over all clients of what each keeps after so many rounds, zero where it keeps nothing yet."""
    homes = Homes(toy.folder / place)
    kept = [homes.load(client.id, rounds).payload.get(role, {}) for client in toy.population]
    return sum(vector({**scale(tree(1), 0.0), **one}) for one in kept) / len(kept)


@dataclass
class Unlike(ToyTrainer):
    """A toy's clients that take unlike numbers of steps."""

    each: Mapping[str, int] = field(default_factory=dict)

    def fit(self, client, order, start, aim, memory):
        self.steps = self.each.get(client, STEPS)
        return super().fit(client, order, start, aim, memory)


class Hand:
    """A toy without noise and momentum, and the same in numpy."""

    def __init__(self, folder: Path, monkeypatch, clients: int = 4, each: Mapping[str, int] = {}):
        monkeypatch.setattr(toys, "NOISE", 0.0)
        self.toy, self.each = Toy(folder, clients=clients), each
        self.toy.trainer = Unlike(self.toy.trainer.targets, momentum=0.0, each=each)
        self.names = [client.id for client in self.toy.population]

    def run(self, algorithm: Algorithm, until: int = 6, policy: Policy = PAIR, **more):
        """Rounds in which not everybody takes part unless the policy says so."""
        done = self.toy.run(algorithm, until=until, policy=policy, **more)
        assert len(done) > 1
        return done

    def aim_at(self, target: Tree, *clients: str) -> None:
        """Give these clients, or all, the same target."""
        targets = dict(self.toy.trainer.targets)
        self.toy.trainer.targets = targets | dict.fromkeys(clients or self.names, target)

    def target(self, client: str) -> Vector:
        return vector(self.toy.trainer.targets[client])

    def steps(self, client: str) -> int:
        return self.each.get(client, STEPS)

    def loss(self, client: str, w: Vector) -> float:
        return float(np.square(w - self.target(client)).sum())

    def fitted(
        self,
        client: str,
        w: Vector,
        pull: Callable[[Vector], Vector] | None = None,
        ahead: Callable[[Vector], Vector] | None = None,
        only: slice = slice(None),
    ) -> Vector:
        """w_k: plain descent of those numbers, its gradients taken ahead and added to where said."""
        target, now = self.target(client)[only], w[only]
        for _ in range(self.steps(client)):
            slope = now - target
            if ahead:
                slope = now + ahead(slope) - target
            now = now - RATE * (slope + (pull(now) if pull else 0))
        full = w.copy()
        full[only] = now
        return full

    def sizes(self, cohort: Iterable[str]) -> Vector:
        """p_k within a cohort, by examples."""
        known = {client.id: client.examples for client in self.toy.population}
        found = np.array([known[client] for client in cohort], dtype=np.float64)
        return found / found.sum()

    def unbiased(self, cohort: Iterable[str]) -> Vector:
        """a_k = (N/n) p_k, p_k being the share of all."""
        cohort = list(cohort)
        everyone = dict(zip(self.names, self.sizes(self.names), strict=True))
        return np.array([everyone[c] for c in cohort]) * len(self.names) / len(cohort)

    def delta(self, one: Round, w: Vector, weights: Vector | None = None, **how) -> Vector:
        """Σ p_k (w_k − w) over a round's cohort."""
        cohort = one.order.cohort
        shares = self.sizes(cohort) if weights is None else weights
        return sum(p * (self.fitted(c, w, **how) - w) for p, c in zip(shares, cohort, strict=True))
