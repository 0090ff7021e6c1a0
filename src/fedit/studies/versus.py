"""Algorithms against each other: a study whose arms differ in nothing but the algorithm, and its table."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from fedit.build.algorithms import entries
from fedit.config import Plan, Study
from fedit.config.algorithm import KINDS, NAMES, External
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
    personal: bool = False,
    workers: int = 2,
    output: str,
) -> Study:
    """The study of a plan under each of these algorithms; the plan's own keeps its parameters.

    `rates` are learning rates to choose from for each on the rows that `dev` (KEY=VALUE) names; `personal`
    has clients' own models scored, too. Raises InputError.
    """
    if len(set(names)) < len(names) or not names:
        raise InputError(f"--algorithms {','.join(names)}: name one or more algorithms, each once")
    arms = {name: {"kind": "federated", "algorithm": _named(name, plan)} for name in names}
    if rates and dev is None:
        raise InputError(
            "--rates needs --dev, a change of the plan that gives rows to choose by, which are never the "
            "test's, e.g. data.test_split=dev"
        )
    tree: dict[str, Any] = {
        "name": plan.name,
        "plan": plan.model_dump(mode="json", exclude={"output"}),
        "arms": arms,
        "seeds": list(range(seeds)),
        "personal": {} if personal else None,
        "workers": workers,
        "output": output,
    }
    if rates:
        tree |= {"tune": {"local.lr": list(rates)}, "dev": dict([read_word(dev or "")])}
    return make_study(tree, "compare")


def _named(name: str, plan: Plan) -> dict[str, Any]:
    """The plan's own algorithm with its parameters, ours or a package's without any. Raises InputError."""
    own = plan.algorithm
    theirs = isinstance(own, External) and name == own.entry and name not in NAMES
    if name == own.name or theirs:
        return own.model_dump()
    outside = sorted(entries())
    if name not in NAMES and name in outside:
        return {"name": "external", "entry": name}
    if name not in NAMES:
        known = [*NAMES, *outside]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(
            f"--algorithms: there is no algorithm {name!r}; {hint}known here: {', '.join(known)}"
        )
    fields = KINDS[name].model_fields.items()
    if needs := [key for key, field in fields if field.is_required() and key != "name"]:
        raise InputError(
            f"--algorithms: {name} needs algorithm.{needs[0]}, and the recipe's own algorithm, "
            f"{plan.algorithm.name}, is the only one whose parameters are known: give "
            f"'algorithm={{name: {name}, {needs[0]}: …}}', or write a study with an arm for each"
        )
    return {"name": name}


def tuned_study(study: Study, found: dict[str, Any]) -> Study:
    """The same with each arm at the rate that did best on dev."""
    best = {part["arm"]: part["best"] for part in found["arms"]}
    arms = {name: {**arm, **best.get(name, {})} for name, arm in study.arms.items()}
    return study.model_copy(update={"arms": arms})


def versus_tables(summary: dict[str, Any]) -> Iterator[Table]:
    """Scores and what each algorithm gains over the first on the same items and seeds; then costs a run."""
    first, seeds = summary["arms"][0]["name"], len(summary["seeds"])
    items = f"{summary['items']:,} items, {seeds} seed{'s' * (seeds != 1)}, 95 % intervals"
    scores = titled(f"{items}; gains over {shown(first)}", ("EM %", "gain", "F1 %", "gain"))
    costs = titled("a run", ("lr", "seconds", "MiB up", "MiB down"))
    for arm in summary["arms"]:
        name, found = arm["name"], arm["metrics"]["all"]
        gain = None if name == first else pair(summary, "differences", name, first)
        cells = []
        for measure in ("em", "f1"):
            over = percent(gain[measure], sign=True) if gain else ""
            cells += [percent(found[measure]), over]
        scores.add_row(shown(name), *cells)
        runs = [one for one in summary["cost"] if one["arm"] == name]
        train, up, down = (
            sum(one[key] for one in runs) / len(runs)
            for key in ("train_seconds", "bytes_up", "bytes_down")
        )
        sizes = (f"{amount / 2**20:.1f}" for amount in (up, down))
        costs.add_row(shown(name), f"{arm['lr']:g}", f"{train:.0f}", *sizes)
    yield scores
    yield costs
