"""From a plan to its parts: the one place where a user's words become objects."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedit import config
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import fedprox
from fedit.config import Plan
from fedit.core.client import answer
from fedit.core.errors import BrokenInvariant, InputError
from fedit.core.messages import Client
from fedit.core.rounds import Policy
from fedit.core.seats import Algorithm, Engine, Select
from fedit.corpus import (
    Held,
    cut_notes,
    divide,
    division_notes,
    held_rows,
    read_data,
    share_out,
    taking_part,
)
from fedit.data.microworld import microworld
from fedit.data.partition import Parts
from fedit.engines.crew import Crew
from fedit.engines.homes import Homes
from fedit.engines.host import Host
from fedit.engines.inprocess import Answer, InProcess, through_bytes
from fedit.engines.processes import Processes, available_cores, warm_up
from fedit.engines.ray import Actors, need_ray
from fedit.engines.workers import Workers
from fedit.report.folder import TOKENS
from fedit.selection import samplers, weights
from fedit.train.adapters import Adapted, attach
from fedit.train.chat_template import Chat
from fedit.train.encoded import EncodedRows, EncodedSet
from fedit.train.forward import Forward, make_forward
from fedit.train.kept import encoded_in
from fedit.train.lending import Lent, copy_of, lend
from fedit.train.model import Base, load_base
from fedit.train.prompts import Encoder, check_tokenizer
from fedit.train.sft import Supervised
from fedit.train.templates import ALPACA, PLAIN, VICUNA, Custom, Template


@dataclass(frozen=True)
class Job:
    """Everything a run needs, loaded and checked; of the data, tokens and the hash of each file."""

    plan: Plan
    base: Base
    adapted: Adapted
    forward: Forward
    encoder: Encoder
    hashes: dict[str, str]
    parts: Parts
    algorithm: Algorithm[Any]
    policy: Policy
    engine: Engine
    trainer: Supervised
    test: Held
    validation: Held
    notes: list[str]


def make_template(plan: config.Template) -> Template | None:
    """The template of that name; None for "chat", which the tokenizer brings. Raises InputError."""
    if plan.name == "own":
        assert plan.prompt is not None  # the plan was checked
        answer_format = "{response}" if plan.answer is None else plan.answer
        return Custom(plan.prompt, plan.prompt_without_context, answer_format)
    return {"alpaca": ALPACA, "vicuna": VICUNA, "plain": PLAIN, "chat": None}[plan.name]


def make_algorithm(plan: config.Algorithm) -> Algorithm[Any]:
    """The algorithm of that name."""
    if isinstance(plan, config.FedProx):
        return fedprox(plan.mu)
    return fedavg()


def make_policy(plan: config.Federation) -> Policy:
    """Sampler, weights and limits of a round."""
    kinds: dict[str, Callable[[int | float], Select]] = {
        "uniform": samplers.Uniform,
        "multinomial": samplers.Multinomial,
        "poisson": samplers.Poisson,
    }
    measure = {
        "examples": weights.by_examples,
        "tokens": weights.by_tokens,
        "uniform": weights.equally,
    }[plan.weights]
    weigh = weights.Unbiased if plan.unbiased else weights.Renormalised
    sampler = kinds[plan.sampler](plan.cohort)
    return Policy(sampler, weigh(measure, plan.weight_cap), plan.minimum, plan.attempts)


def make_base(plan: Plan, lent: Base | None = None, *, blank: bool = False) -> tuple[Base, Encoder]:
    """The base model and the encoder of examples for it; a `lent` base is not loaded again.

    What is lent stays as it is: an adapter goes on a copy that shares its weights. A `blank` base
    has shapes but no weights.
    """
    how, template = plan.template, make_template(plan.template)  # refused before anything is loaded
    if lent is None:
        base = load_base(plan.model, _corpus(), trains_base=trains_base(plan), blank=blank)
    else:
        base = copy_of(lent, own_weights=trains_base(plan))
    check_tokenizer(base.tokenizer)
    template = template or Chat(base.tokenizer)
    return base, Encoder(base.tokenizer, template, how.max_length, how.train_on_inputs)


def trains_base(plan: Plan) -> bool:
    """Whether the adapter's parameters are the base's own, which then cannot be shared."""
    return plan.adapter.kind in ("full", "bitfit")


def _corpus() -> Iterator[str]:
    """What a model made on the spot, without a tokenizer of its own, learns its tokens from."""
    return (f"{turn.text} {turn.context}" for example in microworld() for turn in example.turns)


def make_adapter(plan: Plan, base: Base) -> Adapted:
    """The base with the planned adapter on it, initialised from the run's seed."""
    return _adapted(plan, base.model)


def _adapted(plan: Plan, model: nn.Module) -> Adapted:
    adapted = attach(model, plan.adapter, plan.seed)
    if plan.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        model.enable_input_require_grads()  # type: ignore[operator]
    return adapted


def forward_of(
    plan: Plan, adapted: Adapted, pad: int, device: torch.device, *, blank: bool = False
) -> Forward:
    """How rows are scored by this model, in training and in evaluation; of a blank one, how they would be."""
    return make_forward(
        adapted.model,
        pad,
        device,
        fused=plan.model.kernels == "fused",
        virtual=plan.adapter.kind in ("prefix", "prompt"),
        tried=not blank,
    )


PRELOAD = ("fedit.build",)
"""Modules that workers share."""


@dataclass(frozen=True)
class Hosting:
    """All that makes the clients' side of a run, here or on a worker, to which it travels.

    `shares` are the places of each client's rows among the tokens in the run's `folder`; `lent` is the
    base, None where each worker has to load its own.
    """

    plan: Plan
    folder: Path
    shares: dict[str, NDArray[np.int64]]
    pad: int
    lent: Lent | None = None

    def __call__(self) -> Host:
        """A worker's host, with a model of its own on shared weights."""
        model = self.lent.open_model() if self.lent else make_base(self.plan)[0].model
        adapted, algorithm = _adapted(self.plan, model), make_algorithm(self.plan.algorithm)
        device = next(adapted.model.parameters()).device
        forward = forward_of(self.plan, adapted, self.pad, device)
        encoded = EncodedSet.open(self.folder / TOKENS[0])
        if encoded is None:
            raise BrokenInvariant(
                f"{self.folder / TOKENS[0]}: was damaged since the run was opened"
            )
        trainer = self.trainer(adapted, forward, encoded)
        return Host(self.clients(trainer, algorithm, (), alone=False), algorithm)

    def on(self, device: str) -> "Hosting":
        """The same for workers elsewhere: on that device, with the folder's whole path."""
        model = self.plan.model.model_copy(update={"device": device})
        plan = self.plan.model_copy(update={"model": model})
        return replace(self, plan=plan, folder=self.folder.absolute())

    def trainer(self, adapted: Adapted, forward: Forward, encoded: EncodedSet) -> Supervised:
        """The clients' trainer on a model in this process."""
        rows: dict[str, EncodedRows] = {c: encoded.select(p) for c, p in self.shares.items()}
        local, rounds = self.plan.local, self.plan.federation.rounds
        return Supervised(adapted, rows, local, rounds, forward)

    def clients(
        self,
        trainer: Supervised,
        algorithm: Algorithm[Any],
        population: Sequence[Client],
        *,
        alone: bool,
    ) -> InProcess:
        """The clients in this process."""
        reply: Answer = partial(answer, trainer=trainer, algorithm=algorithm)
        if self.plan.engine.kind == "loopback":
            reply = through_bytes(reply)
        homes = Homes(self.folder / "homes", alone=alone)
        return InProcess(reply, population, homes, self.plan.federation.dropout)


def make_engine(
    hosting: Hosting,
    trainer: Supervised,
    algorithm: Algorithm[Any],
    population: Sequence[Client],
    *,
    spread: bool,
) -> Engine:
    """The engine of that name, in this process unless clients are `spread` over workers.

    The trainer is for clients here. Raises InputError where a cluster cannot be reached.
    """
    if not spread:
        return hosting.clients(trainer, algorithm, population, alone=True)
    how = hosting.plan.engine
    crew: Crew
    if isinstance(how, config.Ray):
        crew = Actors(
            hosting.on("cuda" if how.gpus else "cpu"),
            hosting.folder,
            address=how.address,
            cpus=how.cpus,
            gpus=how.gpus,
            most=how.actors,
        )
    else:
        assert isinstance(how, config.Workers)
        crew = Processes(how.processes or available_cores(), hosting, PRELOAD)
    return Workers(crew, population, Homes(hosting.folder / "homes", alone=False))


def on_workers(plan: Plan) -> bool:
    """Whether clients train on workers; in a study's worker they do not, which is one among others."""
    return plan.engine.kind in ("workers", "ray") and not current_process().daemon


def _lent_to_workers(plan: Plan, base: Base) -> Lent | None:
    """The base as workers take it over; None where each has to load its own."""
    if trains_base(plan):
        return None
    if not isinstance(plan.engine, config.Ray):
        return lend(base)
    return None if plan.engine.gpus else lend(base, shared=False)


def build(plan: Plan, folder: Path, lent: Base | None = None, *, blank: bool = False) -> Job:
    """Load and check everything; cheap refusals come before the model. Raises InputError.

    `lent` is the base of the plan's model section, where it is loaded already. With `blank` its weights
    are left out: everything can be counted and nothing run.
    """
    spread = on_workers(plan) and not blank
    if spread and plan.engine.kind == "ray":
        need_ray()
    elif spread:
        warm_up(PRELOAD)  # imports there while data and base are read here
    corpus = read_data(plan)
    parts = taking_part(divide(plan, corpus.train), plan.federation.only)
    _reachable(plan.federation, len(parts.rows))
    base, encoder = make_base(plan, lent, blank=blank)
    shared = _lent_to_workers(plan, base) if spread else None
    adapted = make_adapter(plan, base)
    forward = forward_of(plan, adapted, encoder.pad_id, base.device, blank=blank)
    dealt = sorted(row for rows in parts.rows.values() for row in rows)
    encode = partial(encoded_in, encoder=encoder, tokenizer=base.tokenizer, template=plan.template)
    train_file, test_file = (folder / name for name in TOKENS)
    encoded = encode(train_file, [corpus.train[row] for row in dealt])
    tested = encode(test_file, corpus.test[: plan.evaluation.limit])
    shares, held = share_out(plan, parts, encoded, dealt)
    algorithm = make_algorithm(plan.algorithm)
    supervised = encoded.supervised
    population = [
        Client(client, len(share), int(supervised[share].sum())) for client, share in shares.items()
    ]
    lending = shared.bare() if shared else None
    hosting = Hosting(plan, folder, shares, encoder.pad_id, lending)
    trainer = hosting.trainer(adapted, forward, encoded)
    return Job(
        plan,
        base,
        adapted,
        forward,
        encoder,
        corpus.hashes,
        parts,
        algorithm,
        make_policy(plan.federation),
        make_engine(hosting, trainer, algorithm, population, spread=spread),
        trainer,
        held_rows(tested, corpus.test, plan.evaluation.by),
        held,
        corpus.notes
        + division_notes(parts)
        + cut_notes("training", encoded)
        + cut_notes("test", tested),
    )


def _reachable(plan: config.Federation, clients: int) -> None:
    for key, amount in (("cohort", plan.cohort), ("minimum", plan.minimum)):
        if isinstance(amount, int) and amount > clients:
            raise InputError(
                f"federation.{key}: {amount} is more than the {clients} clients there are; "
                "lower it, or give a share such as 0.5"
            )
