"""Where simulated clients are trained."""

from typing import Annotated, Literal

from pydantic import Field

from fedit.config.section import Section, named


class InProcess(Section):
    """All clients in this process, one after another."""

    kind: Literal["inprocess"] = "inprocess"


class Loopback(Section):
    """The same with every message packed and unpacked as on a network."""

    kind: Literal["loopback"]


class Workers(Section):
    """Worker processes of one thread; None is one for each core the process may use."""

    kind: Literal["workers"]
    processes: int | None = Field(None, ge=1, le=1024)


Engine = Annotated[
    InProcess | Loopback | Workers, Field(discriminator="kind"), named("kind", "inprocess")
]
