"""fedit: many owners of private instructions tune one shared, frozen language model together."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedit.config import Plan, Study
    from fedit.core.errors import FeditError, InputError
    from fedit.estimating.estimate import Estimate, estimate
    from fedit.recipe import load_plan, load_study, make_plan, make_study
    from fedit.runner import Finished, Run, run
    from fedit.studies.study import study

__all__ = [
    "Estimate",
    "FeditError",
    "Finished",
    "InputError",
    "Plan",
    "Run",
    "Study",
    "estimate",
    "load_plan",
    "load_study",
    "make_plan",
    "make_study",
    "run",
    "study",
]

_HOMES = {
    "Estimate": "fedit.estimating.estimate",
    "FeditError": "fedit.core.errors",
    "Finished": "fedit.runner",
    "InputError": "fedit.core.errors",
    "Plan": "fedit.config",
    "Run": "fedit.runner",
    "Study": "fedit.config",
    "estimate": "fedit.estimating.estimate",
    "load_plan": "fedit.recipe",
    "load_study": "fedit.recipe",
    "make_plan": "fedit.recipe",
    "make_study": "fedit.recipe",
    "run": "fedit.runner",
    "study": "fedit.studies.study",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import fedit` alone stays light."""
    if name == "__version__":
        from importlib.metadata import version

        return version("fedit")
    if name not in _HOMES:
        raise AttributeError(f"module 'fedit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
