"""Several clients' LoRA adapters, trained by one pass forward and backward over the rows of all."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedit.core.errors import BrokenInvariant, FeditError
from fedit.core.fitting import Aim, Fit
from fedit.core.lockstep import Lockstep
from fedit.core.messages import BASE, Order, Payload
from fedit.core.tree import Tree
from fedit.train.adapters import AdapterError
from fedit.train.course import Course
from fedit.train.encoded import Encoded
from fedit.train.fused import lora_layers
from fedit.train.optimizers import make_optimizer
from fedit.train.thin import MaskedLora, SlicedLora
from fedit.train.trainer import LocalTrainer


@dataclass(frozen=True, slots=True)
class Call:
    """One client's fit, as a Trainer is asked for it."""

    client: str
    order: Order
    start: Tree
    aim: Aim
    memory: Payload


class Together:
    """A Trainer whose fits, asked for in `lockstep`, are stacked: each as it would be alone, up to rounding.

    What cannot be stacked is done one after another, and so are stacked fits of which one fails, since
    what one client's numbers do to the others' must not depend on a NaN.
    """

    def __init__(self, trainer: LocalTrainer):
        self._trainer = trainer
        self.lockstep = Lockstep[Call | Callable[[], Any], Any](self._carry_out)

    def fit(self, client: str, order: Order, start: Tree, aim: Aim, memory: Payload) -> Fit:
        """See `LocalTrainer.fit`."""
        found: Fit = self.lockstep.ask(Call(client, order, start, aim, memory))
        return found

    def loss(self, client: str, order: Order, at: Tree) -> float:
        """See `LocalTrainer.loss`."""
        found: float = self.lockstep.ask(partial(self._trainer.loss, client, order, at))
        return found

    def texts(self, client: str, order: Order, at: Tree) -> Tensor:
        """See `LocalTrainer.texts`."""
        found: Tensor = self.lockstep.ask(partial(self._trainer.texts, client, order, at))
        return found

    def _carry_out(self, asked: Sequence[Call | Callable[[], Any]]) -> list[Any]:
        """An answer to each, in order: first those that are stacked."""
        alike: dict[frozenset[str], list[int]] = {}
        for place, one in enumerate(asked):
            if isinstance(one, Call) and _stacks(self._trainer, one):
                alike.setdefault(_trains(one), []).append(place)
        found: dict[int, Any] = {}
        for places in alike.values():
            calls = [one for place in places if isinstance(one := asked[place], Call)]
            if len(calls) > 1 and (fits := _tried(self._trainer, calls)):
                found.update(zip(places, fits, strict=True))
        return [
            found[place] if place in found else self._alone(one) for place, one in enumerate(asked)
        ]

    def _alone(self, one: Call | Callable[[], Any]) -> Any:
        try:
            if not isinstance(one, Call):
                return one()
            return self._trainer.fit(one.client, one.order, one.start, one.aim, one.memory)
        except (FeditError, RuntimeError) as error:
            return error


def obstacle(trainer: LocalTrainer) -> str | None:
    """Why this model's clients cannot be stacked; None where they can."""
    if trainer.objective.tells:
        return "only the losses of supervised tokens can be told apart by client"
    model, config = trainer.adapted.model, trainer.forward.model.config
    layers = lora_layers(model)
    factors = {id(t) for layer in layers for t in _factors(layer)}
    if {id(p) for p in trainer.adapted.parameters.values()} != factors:
        return "not every parameter of the adapter is in a plain LoRA layer with a fast form"
    if not trainer.forward.packs:
        return "rows of this model cannot be laid end to end"
    drops = [n for n, v in config.to_dict().items() if "drop" in n and type(v) is float and v > 0]
    if drops or any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()):
        return f"the model has dropout ({', '.join(drops) or 'in a layer'})"
    return None


def masks(device: torch.device) -> bool:
    """Whether one masked product costs less there than a small one for each client."""
    return device.type != "cpu"


def _trains(call: Call) -> frozenset[str]:
    return call.order.trains if call.aim.trains is None else call.aim.trains


def _stacks(trainer: LocalTrainer, call: Call) -> bool:
    """Whether a fit may be stacked: its numbers of one kind must be alike to lie in one vector."""
    rows, window = trainer.examples.get(call.client, ()), trainer.forward.window
    if call.aim.look or not rows or not _trains(call) & trainer.adapted.parameters.keys():
        return False
    if window < math.inf and max(len(row.ids) for row in rows) > window:
        return False
    for tree in call.memory.values():
        known = [tree[name] for name in _trains(call) if name in tree]
        counts = {float(t) for t in known if not t.dim()}
        if len(known) not in (0, len(_trains(call))) or len(counts) > 1:
            return False
    return True


def _tried(trainer: LocalTrainer, calls: Sequence[Call]) -> list[Fit] | None:
    """The fits, in order; None where one of them fails or leaves the finite numbers."""
    try:
        courses = [trainer.course(c.client, c.order, c.aim.again) for c in calls]
        ranked = sorted(range(len(calls)), key=lambda i: -courses[i].steps)
        stack = _Stack(trainer, [calls[i] for i in ranked], [courses[i] for i in ranked])
        fits = stack.fit()
    except BrokenInvariant:
        raise
    except (FeditError, RuntimeError):
        return None
    return [fits[ranked.index(i)] for i in range(len(calls))] if fits else None


class _Stack:
    """Fits with the longest first, so that those which still train are always the first so many.

    A client's parameters are a row: of `moving`, which trains, or of `still`, which does not.
    """

    def __init__(self, trainer: LocalTrainer, calls: Sequence[Call], courses: Sequence[Course]):
        self.trainer, self.calls, self.courses = trainer, calls, courses
        for call in calls:
            trainer.adapted.check(call.start)
        parameters, device = trainer.adapted.parameters, trainer.forward.device
        self.names = [n for n in parameters if n in _trains(calls[0])]
        self.others = [n for n in parameters if n not in _trains(calls[0])]
        self.shapes = {n: p.shape for n, p in parameters.items()}

        def rows(names: list[str]) -> Tensor:
            return torch.stack([_flat(call.start, names) for call in calls]).to(device)

        self.moving, self.still = rows(self.names), rows(self.others)
        self.own = [nn.Parameter(row) for row in self.moving]
        self.optimizers = [make_optimizer(trainer.plan, [row]) for row in self.own]
        for call, row, optimizer in zip(calls, self.own, self.optimizers, strict=True):
            for key, tree in call.memory.items():
                if known := [tree[n] for n in self.names if n in tree]:
                    flat = torch.cat([t.reshape(-1) for t in known]) if known[0].dim() else known[0]
                    optimizer.state[row][key] = flat.to(device, copy=True)
        self.parts: dict[int, Tensor] = {}  # by the id of a layer's factor: [clients × its numbers]
        self.ends: list[int] = []  # of each client's tokens in the row
        self.mask: Tensor | None = None  # [tokens × clients], where calls cost more than arithmetic

    def fit(self) -> list[Fit] | None:
        """Train them all; None as soon as a loss or, in the end, a parameter is not finite."""
        began, adapted, plan = time.perf_counter(), self.trainer.adapted, self.trainer.plan
        adapted.shift(self.calls[0].order.public.get(BASE, {}))
        before = adapted.watch_base()
        adapted.train()
        with self._in_place():
            for step in range(self.courses[0].steps):
                here = [course for course in self.courses if step < course.steps]
                batches = [next(course.batches) for course in here]
                gradient, losses, learned = self._backward(batches)
                if not all(map(math.isfinite, losses)):
                    return None
                for k, (course, batch) in enumerate(zip(here, batches, strict=True)):
                    self.own[k].grad = gradient[k]
                    if (pull := self.calls[k].aim.pull) is not None:
                        extra = pull(self._tree(k))
                        full = {n: extra.get(n, torch.zeros(self.shapes[n])) for n in self.names}
                        gradient[k].add_(_flat(full, self.names).to(gradient))
                    if plan.clip is not None:
                        nn.utils.clip_grad_norm_(self.own[k], plan.clip)
                    self.optimizers[k].param_groups[0]["lr"] = rate = course.rate(step)
                    self.optimizers[k].step()
                    tokens = sum(len(row.ids) for row in batch)
                    course.count(batch, rate, {"loss": losses[k]}, learned[k], tokens)
        if adapted.watch_base() != before:
            raise AdapterError("the base model was written to while an adapter trained")
        if not bool(self.moving.isfinite().all()):
            return None
        seconds = (time.perf_counter() - began) / sum(course.tokens for course in self.courses)
        return [self._found(k, seconds) for k in range(len(self.calls))]

    def _backward(self, batches: Sequence[list[Encoded]]) -> tuple[Tensor, list[float], list[int]]:
        """Gradients [clients × numbers] of the mean losses, the losses' sums, and the supervised tokens."""
        terms = self.trainer.objective.terms
        learned = [terms(rows) for rows in batches]
        if not all(learned):
            raise FeditError("a batch has no token to learn")
        moving, still = (t[: len(batches)].detach() for t in (self.moving, self.still))
        moving.requires_grad_()
        size, totals = self.trainer.plan.micro_batch or max(map(len, batches)), [0.0] * len(batches)
        for first in range(0, max(map(len, batches)), size):
            part = [rows[first : first + size] for rows in batches]
            self._set_out(moving, still, part)
            counts = [terms(rows) for rows in part]
            losses, _ = self.trainer.forward.losses([row for rows in part for row in rows])
            shares = np.repeat([1 / n for n in learned], counts)
            (losses * torch.from_numpy(shares).to(losses)).sum().backward()
            sums = torch.stack([own.sum() for own in losses.detach().split(counts)])
            totals = [a + b for a, b in zip(totals, sums.tolist(), strict=True)]
        assert moving.grad is not None
        return moving.grad, totals, learned

    def _set_out(self, moving: Tensor, still: Tensor, rows: Sequence[list[Encoded]]) -> None:
        parameters = self.trainer.adapted.parameters
        for flat, names in ((moving, self.names), (still, self.others)):
            parts = flat.split([self.shapes[n].numel() for n in names], 1)
            self.parts |= {id(parameters[n]): t for n, t in zip(names, parts, strict=True)}
        tokens = [sum(len(row.ids) for row in own) for own in rows]
        self.ends = list(accumulate(tokens))
        if masks(moving.device):
            owner = torch.from_numpy(np.repeat(np.arange(len(rows)), tokens)).to(moving.device)
            self.mask = nn.functional.one_hot(owner, len(rows)).to(moving.dtype)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Meanwhile every LoRA layer adds to each token what its own client's factors make of it."""
        layers = lora_layers(self.trainer.adapted.model)
        usual = [layer.forward for layer in layers]
        try:
            for layer in layers:
                layer.forward = partial(self._layer, layer)
            yield
        finally:
            for layer, forward in zip(layers, usual, strict=True):
                layer.forward = forward

    def _layer(self, layer: Any, x: Tensor) -> Tensor:
        (s,), base = layer.scaling.values(), layer.base_layer
        a, b = (self.parts[id(factor)] for factor in _factors(layer))
        given = (x, base.weight, base.bias, a, b)
        if self.mask is None:
            y: Tensor = SlicedLora.apply(*given, self.ends, s)  # type: ignore[no-untyped-call]
        else:
            y = MaskedLora.apply(*given, self.mask, s)  # type: ignore[no-untyped-call]
        return y

    def _tree(self, k: int) -> Tree:
        return _named(self.moving[k].to("cpu", copy=True), self.names, self.shapes)

    def _found(self, k: int, seconds: float) -> Fit:
        fitted = {n: t.to("cpu", torch.float32, copy=True) for n, t in self.calls[k].start.items()}
        fitted |= {n: t.clone() for n, t in self._tree(k).items()}
        memory: Payload = {}
        if self.trainer.plan.keep_optimizer:
            for key, value in self.optimizers[k].state[self.own[k]].items():
                if isinstance(value, Tensor):
                    own = value.detach().to("cpu")
                    split = _named(own, self.names, self.shapes) if own.dim() else {}
                    memory[key] = {n: split.get(n, own).clone() for n in self.names}
        course = self.courses[k]
        return Fit(
            fitted,
            memory,
            course.metrics(self.trainer.objective.unit, seconds * course.tokens),
            course.path,
        )


def _factors(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    (a,), (b,) = layer.lora_A.values(), layer.lora_B.values()
    return a.weight, b.weight


def _flat(tree: Tree, names: Sequence[str]) -> Tensor:
    """The numbers of these names end to end, fp32."""
    return torch.cat([torch.empty(0), *(tree[n].reshape(-1).float() for n in names)])


def _named(flat: Tensor, names: Sequence[str], shapes: dict[str, torch.Size]) -> Tree:
    parts = flat.split([shapes[n].numel() for n in names])
    return {n: t.view(shapes[n]) for n, t in zip(names, parts, strict=True)}
