"""A federation small enough to work out by hand: every client pulls the adapter to its own target."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from fedit.core.client import answer
from fedit.core.errors import BrokenInvariant
from fedit.core.fitting import Aim, Fit
from fedit.core.messages import Client, Order, Payload
from fedit.core.population import Answer
from fedit.core.rounds import Policy, Round, rounds
from fedit.core.seats import Algorithm
from fedit.core.seeds import stream
from fedit.core.shares import cut
from fedit.core.tree import Tree
from fedit.engines.homes import Homes
from fedit.engines.host import Host
from fedit.engines.inprocess import InProcess, through_bytes
from fedit.engines.messages import pack_own_order, unpack_answer
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, by_examples

SHAPES = {"layer.lora_A": (2, 5), "layer.lora_B": (3, 2)}
STEPS, RATE, NOISE = 4, 0.1, 0.05


def tree(seed: int) -> Tree:
    """A random adapter."""
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=rng) for name, shape in SHAPES.items()}


@dataclass
class ToyTrainer:
    """SGD with momentum on ½‖w − target_k‖² with seeded noise: a Trainer without a model."""

    targets: Mapping[str, Tree]
    keep: bool = False
    fitted: list[tuple[str, int]] = field(default_factory=list)
    steps: int = field(default=STEPS, kw_only=True)
    momentum: float = field(default=0.5, kw_only=True)

    def fit(self, client: str, order: Order, start: Tree, aim: Aim, memory: Payload) -> Fit:
        self.fitted.append((client, order.round))
        again = [aim.again] if aim.again else []
        seed = stream(order.seed, order.round, order.attempt, client, *again)
        rng = torch.Generator().manual_seed(seed)
        trains = sorted(order.trains if aim.trains is None else aim.trains)
        now = {name: value.clone() for name, value in start.items()}
        speed = {n: memory.get("speed", {}).get(n, torch.zeros_like(now[n])) for n in trains}
        for _ in range(self.steps):
            at = {name: now[name].clone() for name in trains}
            noise = {n: NOISE * torch.randn(now[n].shape, generator=rng) for n in trains}
            slopes = {n: at[n] - self.targets[client][n] + noise[n] for n in trains}
            if aim.look:
                ahead = {n: at[n] + move for n, move in aim.look.ahead(slopes).items()}
                slopes = {n: ahead[n] - self.targets[client][n] + noise[n] for n in trains}
            extra = aim.pull(at) if aim.pull else {}
            for name in trains:
                slope = slopes[name] + extra.get(name, torch.zeros_like(slopes[name]))
                speed[name] = self.momentum * speed[name] + slope
                now[name] = now[name] - RATE * speed[name]
        metrics = {"loss": self._loss(client, now), "steps": float(self.steps)}
        return Fit(now, {"speed": speed} if self.keep else {}, metrics, RATE * self.steps)

    def loss(self, client: str, order: Order, at: Tree) -> float:
        return self._loss(client, at)

    def texts(self, client: str, order: Order, at: Tree) -> torch.Tensor:
        rng = torch.Generator().manual_seed(stream(0, "texts", client))
        return torch.randn(7, 4, generator=rng) + 1

    def _loss(self, client: str, at: Tree) -> float:
        return sum(float((at[n] - t).square().sum()) for n, t in self.targets[client].items())


@dataclass
class Hosted:
    """What workers do, in this process: groups come as bytes, the last one first."""

    inner: InProcess
    algorithm: Algorithm

    @property
    def homes(self) -> Homes:
        return self.inner.homes

    def clients(self):
        return self.inner.clients()

    def take_back(self, order, clients):
        self.inner.take_back(order, clients)

    def ask(self, order: Order) -> Iterator[Answer]:
        self.homes.rewind(order.round)
        host, news = Host(self.inner, self.algorithm), pack_own_order(order)
        for number in reversed(range(len(cut(order.cohort)))):
            yield from map(unpack_answer, host((news, number)))
            news = None


@dataclass
class Toy:
    """A toy population with its trainer; `engine` wires it to an algorithm."""

    folder: Path
    clients: int = 6
    keep: bool = False

    def __post_init__(self) -> None:
        self.population = [Client(f"c{i}", 10 + 7 * i, 100 + i) for i in range(self.clients)]
        self.trainer = ToyTrainer({c.id: tree(100 + i) for i, c in enumerate(self.population)})
        self.trainer.keep = self.keep

    def engine(
        self,
        algorithm: Algorithm,
        kind: str = "inprocess",
        place: str = "homes",
        dropout: float = 0,
    ):
        reply = partial(answer, trainer=self.trainer, algorithm=algorithm)
        reply = through_bytes(reply, algorithm) if kind == "loopback" else reply
        engine = InProcess(reply, self.population, Homes(self.folder / place), dropout)
        return Hosted(engine, algorithm) if kind in ("hosted", "pairs") else engine

    def run(self, algorithm: Algorithm, kind: str = "inprocess", *, until: int = 5, **options):
        """All rounds of a run from the usual start."""
        engine = options.pop("engine", None) or self.engine(
            algorithm, kind, options.pop("place", kind)
        )
        start = options.pop("state", None) or algorithm.server.init(tree(1))
        policy = options.pop("policy", None) or toy_policy()
        seed = options.pop("seed", 0)
        assert not options
        return list(rounds(start, algorithm, engine, policy, seed=seed, until=until))


def toy_policy(cohort: int | float = 3, **options) -> Policy:
    return Policy(Uniform(cohort), Renormalised(by_examples), **options)


def last(done: list[Round]) -> Tree:
    return done[-1].state.adapter


@dataclass(frozen=True)
class Opening:
    """Makes a worker's host of a toy; it travels to the worker."""

    trainer: ToyTrainer
    algorithm: Algorithm
    folder: Path
    dropout: float = 0.0

    def __call__(self) -> Host:
        reply = partial(answer, trainer=self.trainer, algorithm=self.algorithm)
        clients = InProcess(reply, (), Homes(self.folder), self.dropout)
        return Host(clients, self.algorithm)


@dataclass
class Troubled(ToyTrainer):
    """A trainer that something happens to when it comes to client `at`, the first `times` times."""

    at: str = ""
    trouble: str = ""
    times: int = 10**6
    tally: Path = Path()
    pause: float = 0.0

    def fit(self, client, order, start, aim, memory):
        time.sleep(self.pause)
        if client == self.at and len(list(self.tally.glob("*"))) < self.times:
            (self.tally / f"{time.monotonic_ns()}").touch()
            if self.trouble == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "exit":
                os._exit(7)
            raise {
                "broken": BrokenInvariant("the base changed"),
                "defect": KeyError("bug"),
                "error": RuntimeError("out of memory"),
            }[self.trouble]
        return super().fit(client, order, start, aim, memory)
