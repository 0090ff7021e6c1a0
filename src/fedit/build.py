"""From a plan to its parts: the one place where a user's words become objects."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedit import config
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import fedprox
from fedit.config import Plan
from fedit.core.client import answer
from fedit.core.errors import InputError
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
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess, through_bytes
from fedit.report.folder import TOKENS
from fedit.selection import samplers, weights
from fedit.train.adapters import Adapted, attach
from fedit.train.chat_template import Chat
from fedit.train.forward import Forward, make_forward
from fedit.train.kept import encoded_in
from fedit.train.lending import copy_of
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
    trains_base = plan.adapter.kind in ("full", "bitfit")
    if lent is None:
        base = load_base(plan.model, _corpus(), trains_base=trains_base, blank=blank)
    else:
        base = copy_of(lent, own_weights=trains_base)
    check_tokenizer(base.tokenizer)
    template = template or Chat(base.tokenizer)
    return base, Encoder(base.tokenizer, template, how.max_length, how.train_on_inputs)


def _corpus() -> Iterator[str]:
    """What a model made on the spot, without a tokenizer of its own, learns its tokens from."""
    return (f"{turn.text} {turn.context}" for example in microworld() for turn in example.turns)


def make_adapter(plan: Plan, base: Base) -> Adapted:
    """The base with the planned adapter on it, initialised from the run's seed."""
    adapted = attach(base.model, plan.adapter, plan.seed)
    if plan.model.gradient_checkpointing:
        base.model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        base.model.enable_input_require_grads()  # type: ignore[operator]
    return adapted


def forward_of(
    plan: Plan, adapted: Adapted, base: Base, encoder: Encoder, *, blank: bool = False
) -> Forward:
    """How rows are scored by this model, in training and in evaluation."""
    return make_forward(
        adapted.model,
        encoder.pad_id,
        base.device,
        fused=plan.model.kernels == "fused" and not blank,
        virtual=plan.adapter.kind in ("prefix", "prompt"),
    )


def build(plan: Plan, folder: Path, lent: Base | None = None, *, blank: bool = False) -> Job:
    """Load and check everything; cheap refusals come before the model. Raises InputError.

    `lent` is the base of the plan's model section, where it is loaded already. With `blank` its weights
    are left out: everything can be counted and nothing run.
    """
    corpus = read_data(plan)
    parts = taking_part(divide(plan, corpus.train), plan.federation.only)
    _reachable(plan.federation, len(parts.rows))
    base, encoder = make_base(plan, lent, blank=blank)
    adapted = make_adapter(plan, base)
    dealt = sorted(row for rows in parts.rows.values() for row in rows)
    encode = partial(encoded_in, encoder=encoder, tokenizer=base.tokenizer, template=plan.template)
    train_file, test_file = (folder / name for name in TOKENS)
    encoded = encode(train_file, [corpus.train[row] for row in dealt])
    tested = encode(test_file, corpus.test[: plan.evaluation.limit])
    shares, held = share_out(plan, parts, encoded, dealt)
    shards = {client: encoded.select(share) for client, share in shares.items()}
    forward = forward_of(plan, adapted, base, encoder, blank=blank)
    trainer = Supervised(adapted, shards, plan.local, plan.federation.rounds, forward)
    algorithm = make_algorithm(plan.algorithm)
    reply = partial(answer, trainer=trainer, algorithm=algorithm)
    supervised = encoded.supervised
    population = [
        Client(client, len(share), int(supervised[share].sum())) for client, share in shares.items()
    ]
    engine = InProcess(
        through_bytes(reply) if plan.engine == "loopback" else reply,
        population,
        Homes(folder / "homes"),
        plan.federation.dropout,
    )
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
        engine,
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
