"""A plan's compression, around any method."""

from typing import Any

from fedit import config
from fedit.core.codes import BITS, Bf16, Code, Largest, Whole
from fedit.core.packing import compressed
from fedit.core.seats import Algorithm


def with_compression(algorithm: Algorithm[Any], plan: config.Compression) -> Algorithm[Any]:
    """The method with what travels as planned; the largest numbers alone go up with a memory of the rest."""
    remembers = isinstance(plan.up, config.TopK)
    return compressed(algorithm, _code(plan.up), _code(plan.down), remembers=remembers)


def _code(how: config.Code | None) -> Code | None:
    match how:
        case config.Bf16():
            return Bf16()
        case config.Whole():
            return Whole(BITS[how.kind], how.group)
        case config.TopK():
            return Largest(how.share)
    return None
