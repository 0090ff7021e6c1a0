"""Whether a recipe asks no more of a site than its policy allows."""

from collections.abc import Mapping

from fedit.config import Plan, Policy
from fedit.core.errors import InputError
from fedit.core.gate import COUNTS
from fedit.core.messages import Client, Metrics


def check_recipe(policy: Policy, plan: Plan) -> None:
    """Refuse a recipe that asks for more. Raises InputError, which names both values of each excess."""
    local, base = plan.local, plan.model.base or "a model made on the spot"
    limits: list[tuple[str, object, object, bool]] = []
    if policy.epochs is not None and local.epochs is not None:
        limits.append(("epochs", local.epochs, policy.epochs, local.epochs > policy.epochs))
    if policy.steps is not None and local.steps is not None:
        limits.append(("steps", local.steps, policy.steps, local.steps > policy.steps))
    if policy.rounds is not None:
        rounds = plan.federation.rounds
        limits.append(("rounds", rounds, policy.rounds, rounds > policy.rounds))
    if policy.adapters is not None:
        kind = plan.adapter.kind
        limits.append(("adapters", kind, policy.adapters, kind not in policy.adapters))
    if policy.bases is not None:
        limits.append(("bases", base, policy.bases, base not in policy.bases))
    weights = plan.federation.weights
    unweighed = policy.counts == "withheld" and weights != "uniform"
    limits.append(("counts", f"federation.weights {weights}", policy.counts, unweighed))
    _refuse(limits)


def check_work(policy: Policy, plan: Plan, client: Client) -> None:
    """Refuse a round of more tokens, and of more epochs than steps come to. Raises InputError."""
    local, limits = plan.local, list[tuple[str, object, object, bool]]()
    epochs = float(local.epochs or 0)
    if local.steps is not None:
        epochs = local.steps * local.batch / client.examples
    if policy.epochs is not None:
        limits.append(("epochs", round(epochs, 2), policy.epochs, epochs > policy.epochs))
    if policy.tokens is not None:
        tokens = round(epochs * client.tokens)
        limits.append(("tokens", tokens, policy.tokens, tokens > policy.tokens))
    _refuse(limits)


def told_count(policy: Policy, count: int) -> int | None:
    """A count as it may leave the site."""
    if policy.counts == "withheld":
        return None
    return 1 << (count.bit_length() - 1) if policy.counts == "rounded" and count else count


def told_metrics(policy: Policy, metrics: Metrics, needed: Mapping[str, object]) -> Metrics:
    """The metrics that may leave. Raises InputError where the method combines by one that may not."""
    if policy.metrics is None:
        return metrics
    allowed = {*COUNTS, *policy.metrics}
    if kept_back := [name for name in needed if name not in allowed]:
        raise InputError(
            f"policy: metrics {policy.metrics} leaves out {kept_back[0]}, by which this method combines; add "
            "it to the policy, or ask for a recipe with another algorithm"
        )
    return {name: value for name, value in metrics.items() if name in allowed}


def _refuse(limits: list[tuple[str, object, object, bool]]) -> None:
    over = [
        f"{key}: the recipe asks for {asked}, the site allows {limit}"
        for key, asked, limit, much in limits
        if much
    ]
    if over:
        raise InputError(f"policy: {'; '.join(over)}")
