"""Which changes of its plan a run survives."""

from pathlib import Path
from typing import Any

from fedit.config import Plan
from fedit.core.errors import InputError
from fedit.recipe import differences, make_plan

FREE = (
    "output",
    "trackers",
    "federation.minimum",
    "federation.attempts",
    "gate.norm",
    "gate.factors",
    "gate.times_median",
    "engine.processes",
    "engine.address",
    "engine.actors",
    "engine.deadline",
    "engine.wait",
    "engine.patience",
)
"""Keys of a plan that may change on resume."""


def changes(path: Path, environment: dict[str, Any], plan: Plan) -> list[str]:
    """What differs from the plan that the run in a folder was begun with.

    Raises InputError with the differences that would make it another run.
    """
    old = make_plan(environment["plan"], str(path / "environment.json"))
    free = list(FREE)
    if plan.federation.rounds >= old.federation.rounds and plan.local.schedule == "constant":
        free.append("federation.rounds")
    found = differences(old, plan)
    if changed := [line for line in found if line.partition(":")[0] not in free]:
        raise InputError(
            f"output {path}: was begun with another plan, so it cannot be resumed with this one: "
            f"{'; '.join(changed)}. Take that back, or choose another --output (only "
            "federation.minimum and attempts, gate, trackers, an engine's processes, address, actors, "
            "deadline, wait and patience, and with a constant schedule more federation.rounds may change)"
        )
    return [line for line in found if not line.startswith("output")]
