"""The base model and the adapter on it."""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fedit.config.section import Section, named


def _targets(value: Any) -> Any:
    named = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    if value == "all-linear" or named:
        return value
    raise ValueError("must be all-linear or a list of module names, e.g. [q_proj, v_proj]")


class Model(Section):
    """The frozen base: `base` is a hub id or a folder; or `config` describes one made on the spot.

    `kernels: plain` runs the model's own code on padded batches, the reference for the faster way.
    """

    base: str | None = None
    revision: str | None = None
    config: dict[str, Any] | None = None
    tokenizer: str | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    quantise: Literal["int8", "int4"] | None = None
    device: str = "auto"
    gradient_checkpointing: bool = False
    kernels: Literal["fused", "plain"] = "fused"
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_base(self) -> "Model":
        if (self.base is None) == (self.config is None):
            raise ValueError(
                "give either base (hub id or folder) or config (a model made on the spot)"
            )
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs model_type, e.g. model_type: llama")
        if self.quantise and self.config is not None:
            raise ValueError("quantise needs saved weights: give base, or drop quantise")
        try:
            plain = json.loads(json.dumps(self.config, allow_nan=False)) == self.config
        except (TypeError, ValueError, RecursionError):
            plain = False
        if not plain:
            raise ValueError("config must hold plain JSON values only: texts, numbers, lists, maps")
        return self


class Ranks(Section):
    """Clients of unlike ranks, in tiers from the lowest; `by` size gives those with most rows the highest.

    `shares` say how many of the clients are in each tier, equally many unless given.
    """

    tiers: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    shares: list[Annotated[float, Field(gt=0)]] | None = None
    by: Literal["draw", "size"] = "draw"

    @model_validator(mode="after")
    def _fitting(self) -> "Ranks":
        if self.tiers != sorted(set(self.tiers)):
            raise ValueError(
                f"tiers {self.tiers} must rise: list each rank once, the lowest first, e.g. [2, 4, 8]"
            )
        if self.shares and len(self.shares) != len(self.tiers):
            raise ValueError(
                f"shares {self.shares} are {len(self.shares)} for the {len(self.tiers)} tiers {self.tiers}: "
                "give one for each tier, or leave shares out for equally many clients in each"
            )
        return self


class Lora(Section):
    """LoRA (arXiv 2106.09685), with rsLoRA's α/√r scale (2312.03732) or DoRA (2402.09353) if asked.

    `ranks` gives clients ranks of their own, of which `rank` is the highest.
    """

    kind: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Annotated[Literal["all-linear"] | list[str], BeforeValidator(_targets)] = "all-linear"
    rslora: bool = False
    dora: bool = False
    ranks: Ranks | None = None

    @model_validator(mode="after")
    def _highest(self) -> "Lora":
        if self.ranks and self.ranks.tiers[-1] != self.rank:
            raise ValueError(
                f"rank {self.rank} must be the highest of ranks.tiers {self.ranks.tiers}: set rank to "
                f"{self.ranks.tiers[-1]}, or let the tiers end with {self.rank}"
            )
        return self

    @property
    def scale(self) -> float:
        """s = α/r, with rsLoRA α/√r: ΔW = s B A."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


class LoraXs(Section):
    """LoRA-XS (arXiv 2405.17604): ΔW = s B R A with s = α/r; only R [rank × rank] trains and travels.

    With FedAvg it is Fed-SB (2502.15436) but for its start.
    """

    kind: Literal["lora_xs"]
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Annotated[Literal["all-linear"] | list[str], BeforeValidator(_targets)] = "all-linear"


class IA3(Section):
    """IA³ (arXiv 2205.05638): learned scales; `feedforward` names the targets scaled at their input."""

    kind: Literal["ia3"]
    targets: list[str] | None = None
    feedforward: list[str] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> "IA3":
        if (self.targets is None) != (self.feedforward is None):
            raise ValueError("give targets and feedforward together, or neither")
        return self


class Virtual(Section):
    """Prefix-tuning (arXiv 2101.00190) or prompt-tuning (2104.08691) with this many virtual tokens."""

    kind: Literal["prefix", "prompt"]
    tokens: int = Field(20, ge=1)


class Plain(Section):
    """BitFit (arXiv 2106.10199: every bias) or full tuning (every parameter)."""

    kind: Literal["bitfit", "full"]


Adapter = Annotated[
    Lora | LoraXs | IA3 | Virtual | Plain, Field(discriminator="kind"), named("kind", "lora")
]
