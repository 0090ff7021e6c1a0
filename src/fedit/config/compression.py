"""The short form in which numbers travel."""

from typing import Annotated, Literal

from pydantic import Field

from fedit.config.section import Section, named


class Bf16(Section):
    """The nearest bf16: half the bytes."""

    kind: Literal["bf16"]


class Whole(Section):
    """Whole numbers of 8 to 2 bits, with a scale for each `group` of a tensor's numbers."""

    kind: Literal["int8", "int6", "int5", "int4", "int3", "int2"] = "int8"
    group: int = Field(64, ge=1, le=65536)


class TopK(Section):
    """The largest `share` of each tensor's numbers; it is also the share of the bytes."""

    kind: Literal["topk"]
    share: float = Field(0.1, gt=0, le=1)


Code = Annotated[Bf16 | Whole | TopK, Field(discriminator="kind"), named("kind", "int8")]


class Compression(Section):
    """How clients send (`up`) and what they receive (`down`); None is fp32, as it is."""

    up: Code | None = None
    down: Code | None = None
