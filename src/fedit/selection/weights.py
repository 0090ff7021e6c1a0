"""Weights of a cohort's replies: counts the server knows from enrolment, never what a reply claims."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedit.core.messages import Client, Member
from fedit.core.population import Weights

Measure = Callable[[Client], float]


def by_examples(client: Client) -> float:
    """n_k: the usual FedAvg weight."""
    return float(client.examples)


def by_tokens(client: Client) -> float:
    """Supervised tokens: the weight under which the mean follows the mean loss per token."""
    return float(client.tokens)


def equally(client: Client) -> float:
    """1: every client has the same say."""
    return 1.0


@dataclass(frozen=True, slots=True)
class Renormalised:
    """a_k ∝ draws_k · m_k over the cohort: the usual choice; biased when clients differ in size.

    `cap` bounds m_k, so that no client can outweigh the others by its size.
    """

    measure: Measure
    cap: float | None = None

    def __call__(self, cohort: Sequence[Member], population: Sequence[Client]) -> Weights:
        return Weights({m.client.id: m.draws * self.capped(m.client) for m in cohort})

    def capped(self, client: Client) -> float:
        """m_k, at most the cap."""
        value = self.measure(client)
        return value if self.cap is None else min(value, self.cap)


@dataclass(frozen=True, slots=True)
class Unbiased:
    """a_k = p_k · draws_k / E[draws_k]: over cohorts client k weighs p_k on average, for any sampler."""

    measure: Measure
    cap: float | None = None

    def __call__(self, cohort: Sequence[Member], population: Sequence[Client]) -> Weights:
        capped = Renormalised(self.measure, self.cap).capped
        whole = sum(capped(client) for client in population)
        weights = {m.client.id: capped(m.client) / whole * m.draws / m.expected for m in cohort}
        return Weights(weights, pace=sum(weights.values()))
