"""Algorithms against each other: a study whose arms differ in nothing but the algorithm, and its table."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fedit.config import Plan, Study
from fedit.core.errors import InputError
from fedit.recipe import make_study, read_word
from fedit.studies.claims import pair, percent
from fedit.studies.table import shown, titled


def versus(
    plan: Plan,
    names: Sequence[str],
    seeds: int,
    *,
    rates: Sequence[float] = (),
    dev: str | None = None,
    workers: int = 2,
    output: str,
) -> Study:
    """The study of a plan under each of these algorithms; the plan's own keeps its parameters.

    `rates` are learning rates to choose from for each on the rows that `dev` (KEY=VALUE) names. Raises
    InputError.
    """
    if len(set(names)) < len(names) or not names:
        raise InputError(f"--algorithms {','.join(names)}: name one or more algorithms, each once")
    if rates and dev is None:
        raise InputError(
            "--rates needs --dev, a change of the plan that gives rows to choose by, which are never the "
            "test's, e.g. data.test_split=dev"
        )
    own = plan.algorithm
    arms = {
        name: {
            "kind": "federated",
            "algorithm": own.model_dump() if name == own.name else {"name": name},
        }
        for name in names
    }
    tree: dict[str, Any] = {
        "name": plan.name,
        "plan": plan.model_dump(mode="json", exclude={"output"}),
        "arms": arms,
        "seeds": list(range(seeds)),
        "workers": workers,
        "output": output,
    }
    if rates:
        tree |= {"tune": {"local.lr": list(rates)}, "dev": dict([read_word(dev or "")])}
    return make_study(tree, "compare")


def tuned_study(study: Study, found: dict[str, Any]) -> Study:
    """The same with each arm at the rate that did best on dev."""
    best = {part["arm"]: part["best"] for part in found["arms"]}
    arms = {name: {**arm, **best.get(name, {})} for name, arm in study.arms.items()}
    return study.model_copy(update={"arms": arms})


def versus_table(summary: dict[str, Any]) -> Table:
    """One row an algorithm: scores, what it gains over the first, and what it cost, a run."""
    first = summary["arms"][0]["name"]
    headings = ("EM %", f"over {first}", "F1 %", f"over {first}", "lr", "s", "MiB up", "MiB down")
    seeds = len(summary["seeds"])
    title = f"{summary['items']:,} items, {seeds} seed{'s' * (seeds != 1)}, 95 % intervals, paired"
    table = titled(title, headings)
    for arm in summary["arms"]:
        name, scores = arm["name"], arm["metrics"]["all"]
        gain = None if name == first else pair(summary, "differences", name, first)
        costs = [one for one in summary["cost"] if one["arm"] == name]
        per_run = {
            key: sum(one[key] for one in costs) / len(costs)
            for key in ("train_seconds", "bytes_up", "bytes_down")
        }
        table.add_row(
            shown(name),
            percent(scores["em"]),
            percent(gain["em"], sign=True) if gain else "",
            percent(scores["f1"]),
            percent(gain["f1"], sign=True) if gain else "",
            f"{arm['lr']:g}",
            f"{per_run['train_seconds']:.0f}",
            f"{per_run['bytes_up'] / 2**20:.1f}",
            f"{per_run['bytes_down'] / 2**20:.1f}",
        )
    return table
