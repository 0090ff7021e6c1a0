"""Rounds, local training, and scoring."""

from typing import Any, Literal

from pydantic import Field, model_validator

from fedit.config.section import Amount, Section

BETA = 0.1


class Federation(Section):
    """Rounds, who is asked, how many must reply, and how replies are weighted; `only` these take part."""

    rounds: int = Field(10, ge=1)
    cohort: Amount = 1.0
    minimum: Amount = 0.5
    attempts: int = Field(1, ge=1)
    sampler: Literal["uniform", "multinomial", "poisson"] = "uniform"
    weights: Literal["examples", "tokens", "uniform"] = "examples"
    weight_cap: float | None = Field(None, gt=0)
    unbiased: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    only: list[str] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _reachable(self) -> "Federation":
        counts = isinstance(self.minimum, int) and isinstance(self.cohort, int)
        if counts and self.minimum > self.cohort:
            raise ValueError(
                f"minimum {self.minimum} is more than cohort {self.cohort}: lower it, or give a share"
            )
        return self


class Gate(Section):
    """How large a client's update may be: its norms, and how many times the median of earlier rounds'."""

    norm: float | None = Field(None, gt=0)
    factors: float | None = Field(None, gt=0)
    times_median: float | None = Field(None, gt=1)


class Local(Section):
    """A client's training in one round: `epochs` (default 1) or `steps`; lr schedules span all rounds.

    With `objective` dpo it learns to prefer chosen answers to rejected ones; `beta` holds it to the base.
    """

    objective: Literal["sft", "dpo"] = "sft"
    beta: float = Field(BETA, gt=0)
    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    batch: int = Field(8, ge=1, le=1_000_000)
    micro_batch: int | None = Field(None, ge=1)
    lr: float = Field(3e-4, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, description="rounds of linear warm-up")
    clip: float | None = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(0.0, ge=0, lt=1)
    keep_optimizer: bool = False
    loss_rows: int | None = Field(
        None, ge=1, description="rows on which a method that asks for a client's loss measures it"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, value: Any) -> Any:
        neither = isinstance(value, dict) and value.get("epochs") is value.get("steps") is None
        return {**value, "epochs": 1} if neither else value

    @model_validator(mode="after")
    def _consistent(self) -> "Local":
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide batch {self.batch}")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError("momentum belongs to optimizer: sgd")
        if self.beta != BETA and self.objective != "dpo":
            raise ValueError("beta belongs to objective: dpo")
        return self


class Evaluation(Section):
    """Held-out loss every `every` rounds; `clients` scores each client's own validation rows as well.

    `exactness` measures what combining LoRA's factors loses in each round.
    """

    every: int = Field(1, ge=1)
    batch: int = Field(16, ge=1)
    limit: int | None = Field(None, ge=1)
    clients: bool = False
    by: str = "category"
    max_new_tokens: int = Field(64, ge=1)
    exactness: bool = True
