"""A plan's words, each of which becomes an object here and nowhere else."""

from collections.abc import Callable
from typing import Any

from fedit import config
from fedit.core.norms import Bounds
from fedit.core.population import Select
from fedit.core.rounds import Policy
from fedit.core.seats import Algorithm
from fedit.selection import samplers, weights
from fedit.train.dpo import Preference
from fedit.train.sft import Imitation
from fedit.train.templates import ALPACA, PLAIN, VICUNA, Custom, Template
from fedit.train.trainer import Objective


def make_template(plan: config.Template) -> Template | None:
    """The template of that name; None for "chat", which the tokenizer brings. Raises InputError."""
    if plan.name == "own":
        assert plan.prompt is not None  # the plan was checked
        answer_format = "{response}" if plan.answer is None else plan.answer
        return Custom(plan.prompt, plan.prompt_without_context, answer_format)
    return {"alpaca": ALPACA, "vicuna": VICUNA, "plain": PLAIN, "chat": None}[plan.name]


def make_objective(plan: config.Local) -> Objective:
    """What clients learn of their rows."""
    return Preference(plan.beta) if plan.objective == "dpo" else Imitation()


def make_policy(plan: config.Federation, gate: config.Gate) -> Policy:
    """Sampler, weights and limits of a round, and of an update."""
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
    bounds = Bounds(gate.norm, gate.times_median, gate.factors)
    return Policy(sampler, weigh(measure, plan.weight_cap), plan.minimum, plan.attempts, bounds)


def weighing_note(plan: config.Federation, algorithm: Algorithm[Any]) -> list[str]:
    """That the method takes no notice of the plan's weights, where it does not."""
    if not algorithm.weighs:
        return []
    drawn = plan.sampler == "multinomial"
    twice = ", and a client drawn twice for a round counts once" if drawn else ""
    return [
        f"algorithm {algorithm.name} weighs {algorithm.weighs}: federation.weights, weight_cap and unbiased "
        f"change nothing{twice}"
    ]
