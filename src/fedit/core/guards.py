"""How updates come through a method's guards, on every engine."""

from collections.abc import Sequence
from typing import Any

from fedit.core.codes import Unfit
from fedit.core.gate import expected
from fedit.core.messages import Failure, Order, Reply
from fedit.core.seats import Algorithm, Guard
from fedit.core.tree import Specs


def sealed(guards: Sequence[Guard], plain: Specs) -> Specs:
    """Names, shapes and dtypes of what clients send, from those of what methods send."""
    for guard in guards:
        plain = guard.sealed(plain)
    return plain


def travelling(order: Order, client: str, algorithm: Algorithm[Any]) -> Specs:
    """Names, shapes and dtypes, by role, of what a client sends in answer to an order."""
    return sealed(algorithm.guards, expected(order, algorithm.local.roles, client))


def opened(
    reply: Reply, order: Order, guards: Sequence[Guard], plain: Specs
) -> tuple[Reply, Specs]:
    """A reply opened as far as it can be before the sum, and what the gate shall expect of it."""
    forms = [plain]
    for guard in guards:
        forms.append(guard.sealed(forms[-1]))
    for guard, inner, outer in reversed(list(zip(guards, forms, forms[1:], strict=False))):
        if guard.late or isinstance(reply, Failure):
            return reply, outer
        try:
            reply = guard.open(reply, order, inner)
        except Unfit as fault:
            reply = Failure(reply.client, fault.reason, fault.detail)
    return reply, plain
