"""Clients on workers, which hold the model and send back sums of whole groups."""

from collections.abc import Iterator, Sequence

from fedit.core.messages import Client, Order
from fedit.core.population import Answer
from fedit.core.shares import cut
from fedit.engines.crew import Crew, Task
from fedit.engines.homes import Homes
from fedit.engines.messages import pack_own_order, unpack_answer


class Workers:
    """Simulated clients, trained by a crew each of whose workers opens a `Host`.

    What clients keep is in the folder of `homes`, which all workers share, by rounds: a group whose worker
    was killed is done again by another with the same result.
    """

    def __init__(self, crew: Crew, population: Sequence[Client], homes: Homes):
        self.population, self.homes, self._crew = population, homes, crew
        self._tokens = {client.id: client.tokens for client in population}

    def clients(self) -> Sequence[Client]:
        return self.population

    def ask(self, order: Order) -> Iterator[Answer]:
        """Have the cohort trained, the groups with most tokens first; answers come as they are ready."""
        self.homes.rewind(order.round)
        groups = cut(order.cohort)
        longest = sorted(
            range(len(groups)),
            key=lambda number: -sum(map(self._tokens.__getitem__, groups[number])),
        )
        tasks = [Task(_name(groups[number]), number) for number in longest]
        for _, blocks in self._crew.carry_out(tasks, pack_own_order(order)):
            yield from map(unpack_answer, blocks)

    def take_back(self, order: Order, clients: Sequence[str]) -> None:
        """What these clients kept in the order's round is removed from their homes."""
        self.homes.take_back(clients, order.round + 1)

    def close(self) -> None:
        """End the workers; the next order would start new ones."""
        self._crew.close()


def _name(group: Sequence[str]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} and {len(group) - 1} more clients"
