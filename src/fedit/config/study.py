"""A study: one plan, what to compare it with, over which seeds, and how to choose its settings."""

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PlainValidator, field_validator

from fedit.config.plan import Plan
from fedit.config.section import Section

Kind = Literal["base", "local", "central", "federated"]
"""The untrained base, one client alone, one client with all rows, or the plan's own federation."""

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"

SHARED = (
    "name",
    "model",
    "data",
    "template",
    "evaluation",
    "seed",
    "output",
    "threads",
    "trackers",
)
"""Sections that every arm has in common: with another one the scores could not be compared."""

BUDGETED = ("partition", "federation", "algorithm")
"""Sections that a study sets itself for clients alone and for all rows together …"""

BUDGETED_KEYS = ("local.steps", "local.epochs", "local.keep_optimizer")
"""… and single keys: they make every arm see as many samples."""


class Personal(Section):
    """Clients' own models, scored after each federated run; `limit` bounds the rows of each client.

    `tune` lists steps on each client's rows before scoring; 0 scores what the method itself keeps.
    """

    limit: Annotated[int, Field(ge=1)] | None = None
    tune: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)

    @field_validator("tune")
    @classmethod
    def _once(cls, tune: list[int]) -> list[int]:
        if len(set(tune)) < len(tune):
            raise ValueError("a number of steps stands there twice; take one away")
        return tune


def _clients(value: Any) -> Any:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("must be a whole number ≥ 1, or all")


class Study(Section):
    """Everything `fedit study` needs: a plan, arms that change it, seeds, and a grid for tuning."""

    name: str = Field("study", pattern=NAME)
    plan: Plan
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)
    clients: Annotated[int | Literal["all"], PlainValidator(_clients)] = 4
    arms: dict[str, dict[str, Any]] = Field(
        {name: {"kind": name} for name in ("base", "local")}
        | {"fedit": {"kind": "federated"}, "central": {"kind": "central"}},
        min_length=1,
    )
    dev: dict[str, Any] | None = None
    tune: dict[str, list[Any]] = Field(default_factory=dict)
    tune_seeds: list[Annotated[int, Field(ge=0)]] = Field([1000], min_length=1)
    tune_by: Literal["answers", "loss"] = "answers"
    personal: Personal | None = None
    workers: int = Field(2, ge=1, le=1024)
    output: Annotated[str, Field(pattern=r"^[^\x00]+$")] | None = None

    @field_validator("arms", mode="before")
    @classmethod
    def _kinds(cls, arms: Any) -> Any:
        """Every arm with its kind, which is its name where that is one."""
        if not isinstance(arms, dict):
            return arms
        kinds = get_args(Kind)
        named = {name: name if name in kinds else "federated" for name in arms}
        return {
            name: {"kind": named[name], **changes}
            if isinstance(changes := said or {}, dict)
            else said
            for name, said in arms.items()
        }

    @field_validator("arms")
    @classmethod
    def _arms(cls, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, arm in arms.items():
            if not re.match(NAME, name):
                raise ValueError(f"{name!r} is no name: small letters, digits, - and _ only")
            if arm["kind"] not in get_args(Kind):
                raise ValueError(
                    f"{name}.kind: {arm['kind']!r} is none of {', '.join(get_args(Kind))}"
                )
            for key in arm.keys() - {"kind"}:
                _allowed(name, arm["kind"], key)
        if sum(arm["kind"] == "base" for arm in arms.values()) > 1:
            raise ValueError("only one arm can be of kind base: there is one base")
        return arms

    @field_validator("seeds", "tune_seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands there twice")
        return seeds

    @field_validator("tune")
    @classmethod
    def _grid(cls, tune: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, values in tune.items():
            _allowed("tune", "central", key)
            if not values or any(values.count(value) > 1 for value in values):
                raise ValueError(f"{key} needs one or more values, each once")
        return tune

    @property
    def folder(self) -> PurePath:
        """The study folder: `output`, else runs/<name>."""
        return PurePath(self.output or f"runs/{self.name}")


def _allowed(arm: str, kind: str, key: str) -> None:
    section = key.partition(".")[0]
    if kind == "base":
        raise ValueError(f"{arm}: the base is not trained, so it has no {key}")
    if section in SHARED:
        raise ValueError(f"{arm}: {key} is the same for every arm; change it in plan.{key}")
    if kind != "federated" and (section in BUDGETED or key in BUDGETED_KEYS):
        raise ValueError(
            f"{arm}: {key} is set by the study, so that every arm sees as many samples; take it away"
        )
