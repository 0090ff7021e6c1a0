"""Compression of what travels: a guard for updates, and the way a state goes out, with any method."""

from dataclasses import dataclass, replace

import torch

from fedit.core.codes import Code, Unfit
from fedit.core.messages import ADAPTER, Home, Order, Packed, Payload, State, Update
from fedit.core.seats import Algorithm, Origin, Sent, T
from fedit.core.seeds import generator
from fedit.core.tree import Specs, spec, sub

UNSENT = "unsent."
"""Prefix of the home roles, and of the server's private ones, that hold what was not sent yet."""


@dataclass(frozen=True, slots=True)
class Upward:
    """A client sends packed differences: its adapter's to where it began, other roles as they are.

    Whole numbers are rounded at random, from the run's seed, so that they are right in the mean. With
    `remembers` a client adds what it has not sent to its next differences (error feedback, arXiv
    1809.07599): all that it sent and what it keeps add up to all its differences. Other roles are always
    remembered, and rounded to the nearest: their sum over rounds is a state (SCAFFOLD's c is the mean of the
    c_i), in which errors would stay for good.
    """

    code: Code
    origin: Origin
    remembers: bool = False
    late: bool = False

    def seal(self, update: Update, order: Order, home: Home) -> tuple[Update, Payload]:
        payload, keeps = Payload(), Payload()
        for role, values in update.payload.items():
            tree = sub(values, self.origin(update, order)) if role == ADAPTER else values
            memory = home.payload.get(UNSENT + role, {})
            remembers = self.remembers or role != ADAPTER
            if remembers:
                tree = {n: t + memory[n] if n in memory else t for n, t in tree.items()}
            where = (order.seed, "rounding", order.round, order.attempt, update.client, role)
            payload[role] = self.code.pack(tree, generator(*where) if role == ADAPTER else None)
            if remembers:
                arrives = self.code.unpack(payload[role], spec(tree))
                keeps[UNSENT + role] = {**memory, **sub(tree, arrives)}
        return replace(update, payload=payload), keeps

    def sealed(self, plain: Specs) -> Specs:
        return {role: self.code.packed(of) for role, of in plain.items()}

    def open(self, update: Update, order: Order, plain: Specs) -> Update:
        if update.payload.keys() != plain.keys():
            raise Unfit("roles", f"sent {sorted(update.payload)}, expected {sorted(plain)}")
        payload = Payload()
        for role, packed in update.payload.items():
            try:
                tree = self.code.unpack(packed, plain[role])
            except Unfit as fault:
                raise Unfit(fault.reason, f"{role}: {fault.detail}") from None
            if role == ADAPTER:
                began = self.origin(update, order)
                tree = {name: began[name] + t for name, t in tree.items()}
            payload[role] = tree
        return replace(update, payload=payload)

    def settle(self, total: T, order: Order) -> T:
        return total


@dataclass(frozen=True, slots=True)
class Downward:
    """Clients receive every public role in fp32 packed: its values, and what rounds before left out of them.

    A round is computed from what was received, on the server too: w ← x + Δ where x = w + e − e⁺ was
    received (error feedback), so that w is the start and all steps, but for the last error alone. Rounding
    is to the nearest: x + e⁺ is then w + e exactly, and what no round changes is received as the same bits
    each time.
    """

    code: Code

    def __call__(self, state: State) -> Sent:
        public, packed, memory = Payload(), Payload(), Payload()
        for role, tree in state.public.items():
            if any(t.dtype != torch.float32 for t in tree.values()):
                public[role] = tree
                continue
            if any(t.is_meta for t in tree.values()):  # only its size is asked for
                form = self.code.packed(spec(tree))
                public[role] = tree
                packed[role] = {
                    n: torch.empty(s, dtype=d, device="meta") for n, (s, d) in form.items()
                }
                continue
            left = state.private.get(UNSENT + role, {})
            whole = {name: t + left[name] if name in left else t for name, t in tree.items()}
            packed[role] = self.code.pack(whole)
            public[role] = self.code.unpack(packed[role], spec(tree))
            memory[UNSENT + role] = sub(whole, public[role])
        private = {r: tree for r, tree in state.private.items() if not r.startswith(UNSENT)}
        received = replace(state, public=public, private=private)
        return Sent(received, Packed(self.code, packed), memory)


def compressed(
    algorithm: Algorithm[T], up: Code | None, down: Code | None, *, remembers: bool = False
) -> Algorithm[T]:
    """The method with what travels in a short form; None leaves that way as it is."""
    if up:
        guard = Upward(up, algorithm.origin, remembers)
        algorithm = replace(algorithm, guards=(*algorithm.guards, guard))
    return replace(algorithm, down=Downward(down)) if down else algorithm
