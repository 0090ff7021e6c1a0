"""What every section of a plan has in common."""

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, model_validator


def _amount(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if whole or (isinstance(value, float) and 0 < value <= 1):
        return value
    raise ValueError("must be a count (a whole number ≥ 1) or a share (0 < x ≤ 1.0, with a point)")


Amount = Annotated[int | float, PlainValidator(_amount)]
"""A count (an integer ≥ 1) or a share (a number with a point, in (0, 1]); 1 is one, 1.0 is all."""


class Section(BaseModel):
    """A part of the plan: frozen, no unknown keys, finite numbers, and true is not 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if unknown := [key for key in value if key not in cls.model_fields]:
                hints = "; ".join(f"unknown key {key!r}: {cls._hint(str(key))}" for key in unknown)
                raise ValueError(f"{hints} known here: {', '.join(cls.model_fields)}")
            for key, said in value.items():
                if isinstance(said, bool) and cls.model_fields[key].annotation is not bool:
                    raise ValueError(f"{key} takes no true or false (got {said})")
        return value

    @classmethod
    def _hint(cls, key: str) -> str:
        """Where a key that is unknown here may belong."""
        if close := difflib.get_close_matches(key, cls.model_fields, n=1):
            return f"did you mean {close[0]!r}?"
        for name, field in cls.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, Section) and key in inner.model_fields:
                return f"did you mean {name + '.' + key!r}?"
        return "remove it;"


def named(key: str, default: str) -> BeforeValidator:
    """Lets a section be written as one word (`algorithm: fedavg`) or without the key that names it."""

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return value if key in value else {key: default, **value}
        return {key: value} if isinstance(value, str) else value

    return BeforeValidator(read)
