"""Supervised fine-tuning of one client for one round: the only training loop there is."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from fedit.config import Local
from fedit.core.errors import FeditError
from fedit.core.messages import BASE, Order, Payload
from fedit.core.seats import Aim, Fit
from fedit.core.seeds import generator, stream
from fedit.core.tree import Tree
from fedit.train.adapters import Adapted, AdapterError
from fedit.train.batches import shuffled
from fedit.train.encoded import Encoded
from fedit.train.forward import Forward
from fedit.train.texts import prompt_of, text_vectors


@dataclass(frozen=True)
class Supervised:
    """A Trainer over the clients' encoded examples, all with one base model in memory.

    `rounds` is the length of the federation, over which lr schedules run; `odds` are the chances of a
    client's rows to be drawn, where they are not all alike.
    """

    adapted: Adapted
    examples: Mapping[str, Sequence[Encoded]]
    plan: Local
    rounds: int
    forward: Forward
    odds: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def fit(self, client: str, order: Order, start: Tree, aim: Aim, memory: Payload) -> Fit:
        """Train from `start`; `memory` is the optimizer's state from an earlier round."""
        rows = self._rows(client)
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
        _remember(optimizer, named, memory)

        names: list[str | int] = ["fit", order.round, order.attempt, client]
        names += [aim.again] if aim.again else []
        per_epoch = math.ceil(len(rows) / self.plan.batch)
        steps = self.plan.steps or per_epoch * (self.plan.epochs or 1)
        rng = generator(order.seed, *names, "order")
        batches = shuffled(rows, self.plan.batch, rng, self.odds.get(client))
        loss_sum, supervised, tokens, samples, path = 0.0, 0, 0, 0, 0.0
        device = self.forward.device
        devices = [device] if device.type == "cuda" else []
        self.adapted.train()
        with torch.random.fork_rng(devices=devices):
            _seed(stream(order.seed, *names, "dropout"), device)
            for step, batch in enumerate(islice(batches, steps)):
                rate = lr_at(self.plan, order.round + step / steps, 1 / steps, self.rounds)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                ahead = next(batches) if aim.look and aim.look.fresh else batch
                loss, learned, seen = self._step(optimizer, named, (batch, ahead), aim)
                loss_sum, supervised, tokens = loss_sum + loss, supervised + learned, tokens + seen
                samples, path = samples + len(batch), path + rate
        if self.adapted.watch_base() != before:
            raise AdapterError("the base model was written to while an adapter trained")
        fitted = self.adapted.read()
        kept = _memory(optimizer, named) if self.plan.keep_optimizer else {}
        metrics = {
            "loss": loss_sum / supervised,
            "supervised": float(supervised),
            "tokens": float(tokens),
            "samples": float(samples),
            "steps": float(steps),
            "seconds": time.perf_counter() - began,
        }
        return Fit(fitted, kept, metrics, path)

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        """One for all clients and orders: what does not train has no gradient and is passed over."""
        return make_optimizer(self.plan, list(self.adapted.parameters.values()))

    def loss(self, client: str, order: Order, at: Tree) -> float:
        """Mean nats a supervised token over all of the client's rows, without dropout.

        Raises `FeditError` where there is no such token.
        """
        rows, total, tokens = self._rows(client), 0.0, 0
        self.adapted.write(at)
        self.adapted.shift(order.public.get(BASE, {}))
        self.adapted.model.eval()
        like = sorted(rows, key=lambda row: len(row.ids))
        with torch.inference_mode():
            for first in range(0, len(like), self.plan.batch):
                losses, _ = self.forward.losses(like[first : first + self.plan.batch])
                total, tokens = total + float(losses.double().sum()), tokens + len(losses)
        if not tokens:
            raise FeditError(f"none of client {client}'s {len(rows)} examples has a token to learn")
        return total / tokens

    def texts(self, client: str, order: Order, at: Tree) -> torch.Tensor:
        """What each of the client's prompts is to the base: the mean of its last hidden states."""
        rows = self._rows(client)
        self.adapted.write(at)
        self.adapted.shift({})
        return text_vectors(self.forward, [prompt_of(row) for row in rows], self.plan.batch)

    def _rows(self, client: str) -> Sequence[Encoded]:
        rows = self.examples.get(client, ())
        if not rows:
            raise FeditError(f"client {client} has no example to learn from")
        return rows

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        named: Mapping[str, torch.nn.Parameter],
        rows: tuple[list[Encoded], list[Encoded]],
        aim: Aim,
    ) -> tuple[float, int, int]:
        """One optimizer step: the mean over the batch's supervised tokens, whatever the micro-batches.

        The second batch is the one for the gradients ahead, where the aim looks there.
        """
        batch, later = rows
        loss, supervised = self._backward(batch, optimizer)
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
        return loss, supervised, tokens

    def _backward(self, rows: list[Encoded], optimizer: torch.optim.Optimizer) -> tuple[float, int]:
        """Fresh gradients of the batch's mean loss; the loss's sum, and its supervised tokens."""
        size = self.plan.micro_batch or len(rows)
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        supervised, total = sum(int(row.learn[1:].sum()) for row in rows), 0.0
        if not supervised:
            raise FeditError(f"none of a batch's {len(rows)} examples has a token to learn")
        optimizer.zero_grad()
        for part in parts:
            losses, _ = self.forward.losses(part)
            loss = losses.sum()
            (loss / supervised).backward()
            total += float(loss.detach())
        return total, supervised


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


def make_optimizer(plan: Local, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101) or SGD with the plan's settings.

    `fused` is one call for all tensors; it rounds otherwise than torch's default does.
    """
    decay = plan.weight_decay
    fused = not parameters[0].is_meta  # those of an estimate are only counted
    if plan.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=plan.lr, momentum=plan.momentum, weight_decay=decay, foreach=True
        )
    return torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=decay, fused=fused)


def lr_at(plan: Local, at: float, stride: float, rounds: int) -> float:
    """Learning rate at position `at` (in rounds, 0 ≤ at < rounds) of the federation's schedule.

    Warm-up is linear over `plan.warmup` rounds and reaches the full rate at its last step, `stride`
    rounds long; linear and cosine decay fall to 0 at the end of the last round.
    """
    if at < plan.warmup:
        return plan.lr * min(1.0, (at + stride) / plan.warmup)
    done = (at - plan.warmup) / (rounds - plan.warmup)
    if plan.schedule == "linear":
        return plan.lr * (1 - done)
    if plan.schedule == "cosine":
        return plan.lr * 0.5 * (1 + math.cos(math.pi * done))
    return plan.lr


def _seed(seed: int, device: torch.device) -> None:
    """Seed what draws on this device; torch.manual_seed asks every accelerator there might be."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _memory(optimizer: torch.optim.Optimizer, named: Mapping[str, torch.nn.Parameter]) -> Payload:
    memory: Payload = {}
    for name, parameter in named.items():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor):
                memory.setdefault(key, {})[name] = value.detach().to("cpu", copy=True)
    return memory


def _remember(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.nn.Parameter], memory: Payload
) -> None:
    for key, tree in memory.items():
        for name, value in tree.items():
            if name in named:
                place = named[name].device  # fused AdamW counts its steps there
                optimizer.state[named[name]][key] = value.to(place, copy=True)
