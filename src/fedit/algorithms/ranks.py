"""Clients of unlike LoRA ranks: each receives, trains and sends its own, cut from the global adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedit.core.fitting import Fitter, Work
from fedit.core.lora import cut, filled, rank_of
from fedit.core.messages import ADAPTER, Home, Order, State
from fedit.core.seats import Algorithm, Local, T
from fedit.core.tree import Tree


@dataclass(frozen=True, slots=True)
class Filled:
    """Trains `inner` on factors filled up with zeros to the model's rank; what comes back is cut again.

    The zeros stay zeros, as neither factor gives the other a gradient there, so this is training at the
    client's own rank. All clients share the scale s = α/r of the largest rank: a factor means the same
    everywhere.
    """

    inner: Local
    rank: int

    @property
    def roles(self) -> tuple[str, ...]:
        return self.inner.roles

    def __call__(self, start: Tree, order: Order, home: Home, fit: Fitter) -> Work:
        own = rank_of(start)
        work = self.inner(filled(start, self.rank), order, home, fit)
        return replace(work, fit=replace(work.fit, fitted=cut(work.fit.fitted, own)))


def with_ranks(algorithm: Algorithm[T], ranks: Mapping[str, int], rank: int) -> Algorithm[T]:
    """The method for clients of these ranks, of which none is above `rank`, the model's."""

    def prepare(state: State, order: Order) -> Order:
        order = algorithm.prepare(state, order)
        adapter = order.public[ADAPTER]
        public = {role: tree for role, tree in order.public.items() if role != ADAPTER}
        parts = {r: cut(adapter, r) for r in {ranks[client] for client in order.cohort}}
        personal = {
            client: {**order.personal.get(client, {}), ADAPTER: parts[ranks[client]]}
            for client in order.cohort
        }
        return replace(order, public=public, personal=personal)

    def own(received: Tree, order: Order, home: Home, fit: Fitter) -> Tree:
        return algorithm.own(filled(received, rank), order, home, fit)

    return replace(algorithm, local=Filled(algorithm.local, rank), prepare=prepare, own=own)
