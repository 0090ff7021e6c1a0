"""Whose rows a run has: dealt among clients here, a member's own, or at other places and never seen."""

from collections.abc import Callable
from dataclasses import dataclass

from fedit import config
from fedit.config import Plan
from fedit.core.errors import InputError
from fedit.core.population import Engine
from fedit.corpus import Corpus, all_to, divide, read_data, read_test, taking_part
from fedit.data.partition import Parts


@dataclass(frozen=True)
class Rows:
    """What was read, who has which of it, and the engine of clients that have rows of their own."""

    corpus: Corpus
    parts: Parts
    engine: Engine | None = None


Reading = Callable[[Plan], Rows]
"""Reads and deals what a plan names. Raises InputError."""


def dealt(plan: Plan) -> Rows:
    """The plan's rows, dealt among its clients as it says."""
    corpus = read_data(plan)
    parts = taking_part(divide(plan, corpus.train), plan.federation.only)
    _reachable(plan.federation, len(parts.rows))
    return Rows(corpus, parts)


def of_member(name: str) -> Reading:
    """All rows are those of the one client there is, at its own place."""

    def reading(plan: Plan) -> Rows:
        corpus = read_data(plan)
        return Rows(corpus, all_to(name, corpus.train))

    return reading


def at_their_places(engine: Engine) -> Reading:
    """Clients have their rows, so that only the test's are read here."""

    def reading(plan: Plan) -> Rows:
        _reachable(plan.federation, len(engine.clients()))
        return Rows(read_test(plan), Parts({}, {}), engine)

    return reading


def _reachable(plan: config.Federation, clients: int) -> None:
    for key, amount in (("cohort", plan.cohort), ("minimum", plan.minimum)):
        if isinstance(amount, int) and amount > clients:
            raise InputError(
                f"federation.{key}: {amount} is more than the {clients} clients there are; "
                "lower it, or give a share such as 0.5"
            )
