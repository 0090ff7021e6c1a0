"""The plan of a run: frozen models of everything a recipe may say, with defaults and limits.

Names stay words here; `fedit.build` turns them into objects. Nothing is loaded to check a plan.
"""

import difflib
import json
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from fedit.core.amounts import part_of


def _amount(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if whole or (isinstance(value, float) and 0 < value <= 1):
        return value
    raise ValueError("must be a count (a whole number ≥ 1) or a share (0 < x ≤ 1.0, with a point)")


Amount = Annotated[int | float, PlainValidator(_amount)]
"""A count (an integer ≥ 1) or a share (a number with a point, in (0, 1]); 1 is one, 1.0 is all."""


def _targets(value: Any) -> Any:
    named = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    if value == "all-linear" or named:
        return value
    raise ValueError("must be all-linear or a list of module names, e.g. [q_proj, v_proj]")


class Section(BaseModel):
    """A part of the plan: frozen, no unknown keys, finite numbers, and true is not 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key, said in value.items():
                if key not in cls.model_fields:
                    close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"did you mean {close[0]!r}?" if close else "remove it;"
                    known = ", ".join(cls.model_fields)
                    raise ValueError(f"unknown key {key!r}: {hint} known here: {known}")
                if isinstance(said, bool) and cls.model_fields[key].annotation is not bool:
                    raise ValueError(f"{key} takes no true or false (got {said})")
        return value


def named(key: str, default: str) -> BeforeValidator:
    """Lets a section be written as one word (`algorithm: fedavg`) or without the key that names it."""

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return value if key in value else {key: default, **value}
        return {key: value} if isinstance(value, str) else value

    return BeforeValidator(read)


class Model(Section):
    """The frozen base: `base` is a hub id or a folder; or `config` describes one made on the spot."""

    base: str | None = None
    revision: str | None = None
    config: dict[str, Any] | None = None
    tokenizer: str | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    quantise: Literal["int8", "int4"] | None = None
    device: str = "auto"
    gradient_checkpointing: bool = False
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


class Lora(Section):
    """LoRA (arXiv 2106.09685), with rsLoRA's α/√r scale (2312.03732) or DoRA (2402.09353) if asked."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Annotated[Literal["all-linear"] | list[str], BeforeValidator(_targets)] = "all-linear"
    rslora: bool = False
    dora: bool = False


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
    Lora | IA3 | Virtual | Plain, Field(discriminator="kind"), named("kind", "lora")
]


class Holdout(Section):
    """Rows set aside for testing: a share of all, a count, or a count for each value of column `by`."""

    size: Amount = 0.1
    by: str | None = None


class Data(Section):
    """Sources: a file, folder, glob, hub id or "sample"; relative paths start at the working folder, else
    at the recipe's. `columns` maps instruction, context, response or messages to the file's own columns."""

    train: str
    test: str | None = None
    holdout: Holdout | None = None
    columns: dict[str, str] | None = None
    split: str = "train"
    test_split: str = "test"
    revision: str | None = None
    bad_rows: Literal["refuse", "drop"] = "refuse"
    duplicates: Literal["drop", "keep"] = "drop"
    limit: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_test(self) -> "Data":
        if self.test is not None and self.holdout is not None:
            raise ValueError("give test (a source) or holdout (rows set aside), not both")
        return self


class Template(Section):
    """How an example becomes text and tokens; `name: own` uses the format strings given here."""

    name: Literal["alpaca", "vicuna", "plain", "chat", "own"] = "alpaca"
    prompt: str | None = None
    prompt_without_context: str | None = None
    answer: str | None = None
    max_length: int = Field(512, ge=16)
    train_on_inputs: bool = False

    @model_validator(mode="after")
    def _own(self) -> "Template":
        formats = (self.prompt, self.prompt_without_context, self.answer)
        if self.name == "own" and self.prompt is None:
            raise ValueError("name: own needs prompt, e.g. 'Q: {instruction}\\n{context}\\nA:'")
        if self.name != "own" and any(text is not None for text in formats):
            raise ValueError(f"prompt and answer belong to name: own, not to name: {self.name}")
        return self


class Split(Section):
    """What every partition has: at least `minimum` rows a client, a share of them for its own validation."""

    minimum: int = Field(1, ge=1)
    validation: float = Field(0.0, ge=0, lt=1)


class Iid(Split):
    """Rows dealt at random, equally."""

    by: Literal["iid"] = "iid"
    clients: int = Field(10, ge=1)


class Labelled(Split):
    """Label skew over a column, or over @length, @script or @similarity where there is no label."""

    clients: int = Field(10, ge=1)
    column: str = "category"
    bins: int = Field(8, ge=2)


class Dirichlet(Labelled):
    """Each label is split over the clients by Dirichlet(α) (arXiv 1909.06335); small α is skewed."""

    by: Literal["dirichlet"]
    alpha: float = Field(0.5, gt=0)


class Shards(Labelled):
    """Rows sorted by label and cut; each client gets this many cuts (arXiv 1602.05629; FedIT uses two)."""

    by: Literal["shards"]
    shards: int = Field(2, ge=1)


class Key(Split):
    """One client for each value of a column; `column: file` makes every file a client."""

    by: Literal["key"]
    column: str
    bins: int = Field(8, ge=2)
    small: Literal["refuse", "drop"] = "refuse"


class Sizes(Split):
    """Random rows, sizes by Dirichlet(α): equal content, unequal amounts."""

    by: Literal["sizes"]
    clients: int = Field(10, ge=1)
    alpha: float = Field(0.5, gt=0)


Partition = Annotated[
    Iid | Dirichlet | Shards | Key | Sizes, Field(discriminator="by"), named("by", "iid")
]


class Federation(Section):
    """Rounds, who is asked, how many must reply, and how replies are weighted."""

    rounds: int = Field(10, ge=1)
    cohort: Amount = 1.0
    minimum: Amount = 0.5
    attempts: int = Field(1, ge=1)
    sampler: Literal["uniform", "multinomial", "poisson"] = "uniform"
    weights: Literal["examples", "tokens", "uniform"] = "examples"
    weight_cap: float | None = Field(None, gt=0)
    unbiased: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _reachable(self) -> "Federation":
        counts = isinstance(self.minimum, int) and isinstance(self.cohort, int)
        if counts and self.minimum > self.cohort:
            raise ValueError(
                f"minimum {self.minimum} is more than cohort {self.cohort}: lower it, or give a share"
            )
        return self


class Local(Section):
    """A client's training in one round: `epochs` (default 1) or `steps`; lr schedules span all rounds."""

    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    batch: int = Field(8, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    lr: float = Field(3e-4, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, description="rounds of linear warm-up")
    clip: float | None = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(0.0, ge=0, lt=1)
    keep_optimizer: bool = False

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
        return self


class FedAvg(Section):
    """FedAvg (arXiv 1602.05629)."""

    name: Literal["fedavg"] = "fedavg"


class FedProx(Section):
    """FedProx (arXiv 1812.06127) with its μ."""

    name: Literal["fedprox"]
    mu: float = Field(0.01, ge=0)


Algorithm = Annotated[FedAvg | FedProx, Field(discriminator="name"), named("name", "fedavg")]


class Evaluation(Section):
    """Held-out loss every `every` rounds; `clients` scores each client's own validation rows as well."""

    every: int = Field(1, ge=1)
    batch: int = Field(16, ge=1)
    limit: int | None = Field(None, ge=1)
    clients: bool = False
    by: str = "category"
    max_new_tokens: int = Field(64, ge=1)


class Plan(Section):
    """Everything a run needs; the same plan and seed give the same adapter on one machine."""

    name: str = Field("run", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    model: Model
    adapter: Adapter = Lora()
    data: Data
    template: Annotated[Template, named("name", "alpaca")] = Template()
    partition: Partition = Iid()
    federation: Federation = Federation()
    local: Local = Local(epochs=1)
    algorithm: Algorithm = FedAvg()
    evaluation: Evaluation = Evaluation()
    engine: Literal["inprocess", "loopback"] = "inprocess"
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = []
    threads: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    output: str | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Plan":
        if troubles := self._troubles():
            raise ValueError("; ".join(troubles))
        return self

    def _troubles(self) -> list[str]:
        fed, kind = self.federation, self.adapter.kind
        clients = getattr(self.partition, "clients", None)
        troubles = []
        if clients is not None and isinstance(fed.cohort, int) and fed.cohort > clients:
            troubles.append(
                f"federation.cohort {fed.cohort} is more than partition.clients {clients}: lower it, "
                "or give a share such as 0.5"
            )
        if clients is not None and isinstance(fed.minimum, int) and isinstance(fed.cohort, float):
            cohort = part_of(fed.cohort, clients)
            if fed.minimum > cohort:
                troubles.append(
                    f"federation.minimum {fed.minimum} is more than the {cohort} clients that "
                    f"federation.cohort {fed.cohort} asks: lower it, or give a share such as 0.5"
                )
        if self.local.warmup >= fed.rounds:
            troubles.append(
                f"local.warmup {self.local.warmup} must be less than federation.rounds {fed.rounds}"
            )
        if kind in ("full", "bitfit") and (self.model.quantise or self.model.precision == "bf16"):
            troubles.append(
                f"adapter.kind {kind} trains base weights in fp32: drop model.quantise and "
                "model.precision bf16, or use adapter.kind lora"
            )
        if self.model.gradient_checkpointing and kind == "prefix":
            troubles.append(
                "adapter.kind prefix cannot run with model.gradient_checkpointing: drop one"
            )
        if self.evaluation.clients and not self.partition.validation:
            troubles.append("evaluation.clients needs partition.validation > 0, e.g. 0.1")
        return troubles

    @property
    def folder(self) -> PurePath:
        """The run folder: `output`, else runs/<name>."""
        return PurePath(self.output or f"runs/{self.name}")
