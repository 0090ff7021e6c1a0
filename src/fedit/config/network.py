"""A federation over a network: who takes part, and what a site allows."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from fedit.config.section import Section

NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"

RESERVED = ("server", "driver", "operator", "authority")
"""Names that kits have which are no site's."""


class Network(Section):
    """What `fedit provision` reads: the server's host and port, and every site by name.

    Certificates hold for `days`; a site's name is its client id in every run.
    """

    name: str = Field("federation", pattern=NAME)
    host: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
    port: int = Field(8002, ge=1024, le=65535)
    sites: list[Annotated[str, Field(pattern=NAME)]] = Field(min_length=1)
    days: int = Field(360, ge=1, le=3650)

    @field_validator("sites")
    @classmethod
    def _distinct(cls, sites: list[str]) -> list[str]:
        for site in sites:
            if sites.count(site) > 1 or site in RESERVED:
                raise ValueError(
                    f"{site}: stands there twice or is a reserved name; choose another"
                )
        return sites


class Site(Section):
    """What a site settles for itself, whatever the recipe says: how its rows are read, and what trains them.

    `columns` and `bad_rows` are as in a recipe's data section; `base` is the folder of the site's own copy of
    the base model; `micro_batch` bounds the rows that pass the model at once, in equal parts of a batch.
    """

    columns: dict[str, str] | None = None
    bad_rows: Literal["refuse", "drop"] = "refuse"
    base: str | None = None
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    micro_batch: int | None = Field(None, ge=1)


class Policy(Section):
    """What a site lets a recipe ask of it, and what may leave: a recipe that wants more is refused.

    `counts` says how the site tells how many rows and tokens it has: exactly, rounded down to a power of
    two, or not at all; a text never leaves. `metrics` names those that may leave beside the counts of one
    round's training, all of them where it is None. Seconds are of one round's training at the site, memory
    is the worker's own, in GiB.
    """

    epochs: float | None = Field(None, gt=0)
    steps: int | None = Field(None, ge=1)
    rounds: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0)
    memory: float | None = Field(None, gt=0)
    adapters: list[str] | None = Field(None, min_length=1)
    bases: list[str] | None = Field(None, min_length=1)
    counts: Literal["exact", "rounded", "withheld"] = "exact"
    metrics: list[str] | None = None
