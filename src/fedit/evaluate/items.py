"""Items: a held-out question with its reference, a model's answer and loss, and whether it is right."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedit.core.examples import Example
from fedit.evaluate.checks import LABEL, check_rule, correct
from fedit.evaluate.loss import Loss
from fedit.evaluate.scores import token_f1


@dataclass(frozen=True, slots=True)
class Item:
    """One scored answer; `loss` is the sum of nats over the reference's `tokens` (None: not finite)."""

    where: str
    labels: dict[str, str]
    question: str
    context: str
    reference: str
    answer: str
    correct: bool
    f1: float
    loss: float | None
    tokens: int


def check_rules(examples: Iterable[Example]) -> None:
    """Refuse rows whose rule of checking nobody knows, before a model answers them. Raises InputError."""
    for example in examples:
        if rule := example.labels.get(LABEL):
            check_rule(rule, example.where)


def make_items(
    examples: Sequence[Example], answers: Sequence[str], losses: Sequence[Loss]
) -> list[Item]:
    """The items of examples, each with the model's answer and loss."""
    return [
        Item(
            where=example.where,
            labels=dict(example.labels),
            question=example.turns[-2].text,
            context=example.turns[-2].context,
            reference=example.answer,
            answer=answer,
            correct=correct(answer, example.answer, example.labels.get(LABEL) or None),
            f1=token_f1(answer, example.answer),
            loss=loss.total if math.isfinite(loss.total) else None,
            tokens=loss.tokens,
        )
        for example, answer, loss in zip(examples, answers, losses, strict=True)
    ]


def loss_of(items: Iterable[Item]) -> Loss:
    """The items' losses together; NaN if one of them was not finite."""
    losses = [(math.nan if item.loss is None else item.loss, item.tokens) for item in items]
    return Loss(sum(loss for loss, _ in losses), sum(tokens for _, tokens in losses))


def to_json(item: Item) -> dict[str, Any]:
    """The item as JSON values."""
    return asdict(item)


def from_json(values: Mapping[str, Any]) -> Item:
    """The item that `to_json` wrote. Raises TypeError for other keys."""
    return Item(**values)
