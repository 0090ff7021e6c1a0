"""Where examples come from, how they become text, and how they are shared out."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedit.config.section import Amount, Section, named


class Holdout(Section):
    """Rows set aside for testing: a share of all, a count, or a count for each value of column `by`.

    They are drawn by `seed`, or else by the run's own.
    """

    size: Amount = 0.1
    by: str | None = None
    seed: int | None = Field(None, ge=0)


class Temperature(Section):
    """Each client draws rows with label l of column `by` as often as p_l^(1/t) says, instead of p_l."""

    by: str
    t: float = Field(5.0, gt=0)


class Data(Section):
    """Sources: a file, folder, glob, hub id or "microworld"; relative paths start at the working folder, else
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
    temperature: Temperature | None = None

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
