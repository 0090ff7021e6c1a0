"""What a method makes server and clients hold, found by one round of the method itself in miniature.

Every tensor of the adapter is cut down to one number a dimension, training is left out, and what then
lies about by role and name is counted at its full size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fedit.build import Job
from fedit.core.client import MEMORY, answer
from fedit.core.fitting import Aim, Fit
from fedit.core.lora import layers
from fedit.core.messages import BASE, Home, Order, Payload, State, models
from fedit.core.rounds import make_order
from fedit.core.sums import Sum
from fedit.core.tree import Tree
from fedit.estimating.working import Living


@dataclass(frozen=True, slots=True)
class Keeping:
    """Bytes: the server's `state`, its `sums` in fp64 (None where a method's total is its own), its `step`.

    `home` is what one client keeps, and `shifted` the numbers of the base that have a method's additions.
    """

    state: int
    sums: int | None
    step: int
    home: int
    shifted: int


def keeping(job: Job, tree: Tree, moments: Payload) -> Keeping:
    """What the method holds of an adapter like `tree` and, where they are kept, an optimizer's `moments`."""
    small = {name: torch.ones((1,) * t.dim()) for name, t in tree.items()}
    state, home = job.algorithm.server.init(small), Home()
    method = replace(job.algorithm, guards=())  # short forms have other shapes
    trainer = _Idle(moments if job.plan.local.keep_optimizer else {})
    for round in range(2):  # some methods train one part of the adapter first and then the other
        order = make_order(
            replace(state, round=round),
            0,
            method,
            job.policy,
            job.engine.clients(),
            job.plan.seed,
        )
        client = order.cohort[0]
        update, home = answer(order, client, home, trainer, method)
    total = method.combine.add(method.combine.start(order), update, order)
    whole = partial(_whole, tree=tree)
    stays = 0
    for role, part in home.payload.items():
        like = moments[role.removeprefix(MEMORY)] if role.startswith(MEMORY) else tree
        stays += _bytes({role: part}, partial(_whole, tree=like))
    return Keeping(
        _bytes(state.public, whole) + _bytes(state.private, whole),
        _sums(total, state, whole) if isinstance(total, Sum) else None,
        _step(job, state, total, order, whole) if isinstance(total, Sum) else 0,
        stays,
        sum(whole(name, t).numel() for name, t in state.public.get(BASE, {}).items()),
    )


@dataclass(frozen=True, slots=True)
class _Idle:
    """A Trainer that trains nothing and remembers what an optimizer would."""

    moments: Mapping[str, Tree]

    def fit(self, client: str, order: Order, start: Tree, aim: Aim, memory: Payload) -> Fit:
        trains = order.trains if aim.trains is None else aim.trains
        kept = {
            role: {name: torch.ones((1,) * t.dim()) for name, t in part.items() if name in trains}
            for role, part in self.moments.items()
        }
        return Fit(dict(start), kept, {"loss": 1.0, "steps": 1.0}, 1.0)

    def loss(self, client: str, order: Order, at: Tree) -> float:
        return 1.0

    def texts(self, client: str, order: Order, at: Tree) -> Tensor:
        return torch.ones(1, 1)


Whole = Callable[[str, Tensor], Tensor]
"""(name, in miniature) → the same without values, at its full size."""


def _whole(name: str, small: Tensor, tree: Tree) -> Tensor:
    """A tensor like the adapter's of that name, or like the layer of that name; others are as they are."""
    shape = list(small.shape)
    if name in tree:
        shape = list(tree[name].shape)
    elif name in (known := layers(tree)):
        a, b = known[name]
        full = (tree[b].shape[0], tree[a].shape[1])
        shape = [f if n == 1 else n for n, f in zip(shape, full, strict=True)]
    return torch.empty(shape, dtype=small.dtype, device="meta")


def _bytes(payload: Payload, whole: Whole) -> int:
    return sum(whole(name, t).nbytes for part in payload.values() for name, t in part.items())


def _sums(total: Sum, state: State, whole: Whole) -> int:
    """One client chooses one of a method's global models, a cohort may choose them all."""
    held = {role: total.sums(role) for role in total.masses}
    return _bytes(held, whole) + (len(models(state.public)) - 1) * _bytes(
        {role: part for role, part in held.items() if role in state.public}, whole
    )


def _step(job: Job, state: State, total: Sum, order: Order, whole: Whole) -> int:
    """The most that the server's own step makes on top, run without values; 0 where it needs the values."""
    with FakeTensorMode(allow_non_fake_inputs=True), Living() as living:

        def blank(payload: Payload) -> Payload:
            return {
                role: {n: torch.empty(whole(n, t).shape, dtype=t.dtype) for n, t in part.items()}
                for role, part in payload.items()
            }

        full = replace(state, public=blank(state.public), private=blank(state.private))
        parts = blank({role: total.sums(role) for role in total.masses})
        shapes = {role: {n: t.shape for n, t in part.items()} for role, part in parts.items()}
        sizes = {r: sum(s.numel() for s in own.values()) for r, own in shapes.items()}
        numbers = {r: torch.empty(size, dtype=torch.float64) for r, size in sizes.items()}
        del parts
        added = Sum(total.masses, total.level, total.counts, numbers, shapes)
        before = living.peak = living.now
        try:
            job.algorithm.server.step(full, added, order)
        except RuntimeError:
            return 0
        return int(living.peak - before)
