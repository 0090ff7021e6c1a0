"""Where simulated clients are trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedit.config.section import Section, named


class InProcess(Section):
    """All clients in this process, one after another, or up to `together` in one pass where that works."""

    kind: Literal["inprocess"] = "inprocess"
    together: int = Field(1, ge=1, le=1024)


class Loopback(Section):
    """The same with every message packed and unpacked as on a network."""

    kind: Literal["loopback"]


class Workers(Section):
    """Worker processes of one thread; None is one for each core the process may use."""

    kind: Literal["workers"]
    processes: int | None = Field(None, ge=1, le=1024)


class Ray(Section):
    """Actors of a Ray cluster, each with so many `cpus` and so much of a GPU; None is as many as fit.

    The address is "auto" or that of a running cluster; None starts Ray on this machine alone.
    """

    kind: Literal["ray"]
    address: str | None = Field(None, pattern=r"^(auto|(ray://)?[^\s/]+:\d{1,5})$")
    cpus: int = Field(1, ge=0, le=1024)
    gpus: float = Field(0.0, ge=0, le=1)
    actors: int | None = Field(None, ge=1, le=1024)

    @model_validator(mode="after")
    def _needs_something(self) -> "Ray":
        if not self.cpus and not self.gpus:
            raise ValueError("cpus and gpus are both 0: an actor needs one of them")
        return self


class Sites(Section):
    """Clients at other organisations, driven by `fedit server`; times in seconds.

    A site has `deadline` for a round. The first round begins once all sites are there, or after `wait`
    those that are; where fewer than the minimum are there the server waits `patience` before it stops.
    """

    kind: Literal["sites"]
    deadline: float = Field(600.0, gt=0)
    wait: float = Field(60.0, ge=0)
    patience: float = Field(3600.0, ge=0)


Engine = Annotated[
    InProcess | Loopback | Workers | Ray | Sites,
    Field(discriminator="kind"),
    named("kind", "inprocess"),
]
