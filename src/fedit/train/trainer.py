"""Training of one client for one round: the only training loop there is, whatever is learned."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fedit.config import Local
from fedit.core.errors import FeditError
from fedit.core.fitting import Aim, Fit
from fedit.core.messages import BASE, Metrics, Order, Payload
from fedit.core.seeds import generator
from fedit.core.tree import Tree
from fedit.train.adapters import Adapted, AdapterError
from fedit.train.course import Course
from fedit.train.encoded import Encoded
from fedit.train.forward import Forward
from fedit.train.optimizers import make_optimizer, memory_of, remember
from fedit.train.texts import prompt_of, text_vectors


class Objective(Protocol):
    """What is learned of a batch: its mean loss is that of all terms, such as tokens or pairs."""

    @property
    def unit(self) -> str:
        """The metric under which the number of terms is told."""
        ...

    @property
    def tells(self) -> tuple[str, ...]:
        """Further metrics, means over the terms like the loss."""
        ...

    def ready(
        self, adapted: Adapted, forward: Forward, rows: Sequence[Encoded], batch: int
    ) -> Sequence[Encoded]:
        """The rows with all that is computed of them once, before anything else is done with the model."""
        ...

    def terms(self, rows: Sequence[Encoded]) -> int:
        """How many losses these rows have."""
        ...

    def __call__(self, forward: Forward, rows: Sequence[Encoded]) -> tuple[torch.Tensor, Metrics]:
        """The losses [terms] of rows that are ready, and the sums of what is told beside them."""
        ...


@dataclass(frozen=True)
class LocalTrainer:
    """A Trainer over the clients' encoded examples, all with one base model in memory.

    `rounds` is the length of the federation, over which lr schedules run; `odds` are the chances of a
    client's rows to be drawn, where they are not all alike.
    """

    adapted: Adapted
    examples: Mapping[str, Sequence[Encoded]]
    plan: Local
    rounds: int
    forward: Forward
    objective: Objective
    odds: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    _ready: dict[str, Sequence[Encoded]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def fit(self, client: str, order: Order, start: Tree, aim: Aim, memory: Payload) -> Fit:
        """Train from `start`; `memory` is the optimizer's state from an earlier round."""
        course = self.course(client, order, aim.again)
        began = time.perf_counter()
        self.adapted.write(start)
        self.adapted.shift(order.public.get(BASE, {}))
        before = self.adapted.watch_base()
        trains = order.trains if aim.trains is None else aim.trains
        named = {n: p for n, p in self.adapted.parameters.items() if n in trains}
        for name, parameter in self.adapted.parameters.items():
            parameter.requires_grad_(name in named)
        optimizer = self._optimizer
        optimizer.state.clear()
        remember(optimizer, named, memory)

        device = self.forward.device
        devices = [device] if device.type == "cuda" else []
        self.adapted.train()
        with torch.random.fork_rng(devices=devices):
            _seed(course.seed, device)
            for step, batch in enumerate(islice(course.batches, course.steps)):
                rate = course.rate(step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                ahead = next(course.batches) if aim.look and aim.look.fresh else batch
                course.count(batch, rate, *self._step(optimizer, named, (batch, ahead), aim))
        if self.adapted.watch_base() != before:
            raise AdapterError("the base model was written to while an adapter trained")
        fitted = self.adapted.read()
        kept = memory_of(optimizer, named) if self.plan.keep_optimizer else {}
        metrics = course.metrics(self.objective.unit, time.perf_counter() - began)
        return Fit(fitted, kept, metrics, course.path)

    def course(self, client: str, order: Order, again: str) -> Course:
        """A fit's batches and learning rates. Raises FeditError where there is nothing to learn from."""
        rows, odds = self._rows(client), self.odds.get(client)
        return Course(self.plan, rows, order, client, again, self.rounds, odds)

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        """One for all clients and orders: what does not train has no gradient and is passed over."""
        return make_optimizer(self.plan, list(self.adapted.parameters.values()))

    @property
    def _at_once(self) -> int:
        """Rows of a pass that trains nothing: no more than training takes, whose memory is there."""
        return self.plan.micro_batch or self.plan.batch

    def loss(self, client: str, order: Order, at: Tree) -> float:
        """The mean loss over the client's rows, or `loss_rows` of them drawn for the round, without dropout.

        Raises `FeditError` where there is nothing to learn.
        """
        rows, total, terms = self._rows(client), 0.0, 0
        if (most := self.plan.loss_rows) and most < len(rows):
            rng = generator(order.seed, "loss rows", order.round, client)
            rows = [rows[i] for i in rng.choice(len(rows), most, replace=False)]
        self.adapted.write(at)
        self.adapted.shift(order.public.get(BASE, {}))
        self.adapted.model.eval()
        like = sorted(rows, key=lambda row: len(row.ids))
        with torch.inference_mode():
            for first in range(0, len(like), self._at_once):
                losses, _ = self.objective(self.forward, like[first : first + self._at_once])
                total, terms = total + float(losses.double().sum()), terms + len(losses)
        if not terms:
            raise FeditError(f"none of client {client}'s {len(rows)} examples has a token to learn")
        return total / terms

    def texts(self, client: str, order: Order, at: Tree) -> torch.Tensor:
        """What each of the client's prompts is to the base: the mean of its last hidden states."""
        rows = self._rows(client)
        self.adapted.write(at)
        self.adapted.shift({})
        return text_vectors(self.forward, [prompt_of(row) for row in rows], self._at_once)

    def _rows(self, client: str) -> Sequence[Encoded]:
        """The client's rows, ready; to make them so leaves base and adapter in any state."""
        if client not in self._ready:
            rows = self.examples.get(client, ())
            if not rows:
                raise FeditError(f"client {client} has no example to learn from")
            self._ready[client] = self.ready(rows, self._at_once)
        return self._ready[client]

    def ready(self, rows: Sequence[Encoded], batch: int) -> Sequence[Encoded]:
        """Rows as the objective takes them, such as those held out."""
        return self.objective.ready(self.adapted, self.forward, rows, batch)

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        named: Mapping[str, torch.nn.Parameter],
        rows: tuple[list[Encoded], list[Encoded]],
        aim: Aim,
    ) -> tuple[Metrics, int, int]:
        """One optimizer step: the mean over the batch's terms, whatever the micro-batches.

        The sums to tell, the terms, and the tokens seen. The second batch is the one for the gradients
        ahead, where the aim looks there.
        """
        batch, later = rows
        told, terms = self._backward(batch, optimizer)
        tokens = sum(len(row.ids) for row in batch)
        if aim.look:
            there = {n: p.detach().clone() for n, p in named.items()}
            _add(named, aim.look.ahead(_host({n: p.grad for n, p in named.items()})))
            self._backward(later, optimizer)
            tokens += sum(len(row.ids) for row in later)
            with torch.no_grad():
                for name, parameter in named.items():
                    parameter.copy_(there[name])
        if aim.pull is not None:
            _add({n: p.grad for n, p in named.items()}, aim.pull(_host(named)))
        if self.plan.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(named.values()), self.plan.clip, foreach=True)
        optimizer.step()
        return told, terms, tokens

    def _backward(
        self, rows: list[Encoded], optimizer: torch.optim.Optimizer
    ) -> tuple[Metrics, int]:
        """Fresh gradients of the batch's mean loss; the sums to tell, the loss's one of them, the terms."""
        size = self.plan.micro_batch or len(rows)
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        terms, sums = self.objective.terms(rows), {"loss": 0.0}
        if not terms:
            raise FeditError(f"none of a batch's {len(rows)} examples has a token to learn")
        optimizer.zero_grad()
        for part in parts:
            losses, told = self.objective(self.forward, part)
            loss = losses.sum()
            (loss / terms).backward()
            for key, value in {"loss": float(loss.detach()), **told}.items():
                sums[key] = sums.get(key, 0.0) + value
        return sums, terms


def _host(tensors: Mapping[str, torch.Tensor | None]) -> Tree:
    """Copies in fp32 on the CPU of those that are there."""
    return {
        n: t.detach().to("cpu", torch.float32, copy=True)
        for n, t in tensors.items()
        if t is not None
    }


def _add(tensors: Mapping[str, torch.Tensor | None], extra: Tree) -> None:
    with torch.no_grad():
        for name, values in extra.items():
            tensor = tensors[name]
            if tensor is not None:
                tensor.add_(values.to(tensor))


def _seed(seed: int, device: torch.device) -> None:
    """Seed what draws on this device; torch.manual_seed asks every accelerator there might be."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
