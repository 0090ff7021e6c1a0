"""What a study writes for the report: summary.json and scores.json, checked as they are read."""

import json
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedit.core.errors import InputError


class Part(BaseModel):
    """A part of a file; keys that this version does not know are let be."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Estimate(Part):
    """A mean and its 95 % interval; None where it is not finite."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


Maybe = Annotated[Estimate | None, Field(default=None)]


class Metrics(Part):
    """The three measures of an arm over some of the items."""

    em: Maybe
    f1: Maybe
    loss: Maybe


class Arm(Part):
    """One way of training, over all its runs."""

    name: str
    kind: str = "federated"
    runs: int = 1
    lr: float | None = None
    samples: float | None = None
    metrics: dict[str, Metrics] = Field(default_factory=dict)

    def at(self, group: str, measure: str) -> Estimate:
        """The estimate of a measure over a group of items; empty where there is none."""
        found = getattr(self.metrics.get(group), measure, None)
        return found if isinstance(found, Estimate) else Estimate()


class Extreme(Part):
    """The best or worst of several runs."""

    seed: int
    client: str
    value: float | None = None


class Spread(Part):
    """Both ends of several runs."""

    best: Extreme
    worst: Extreme


class Comparison(Part):
    """One arm over another: a difference or a ratio, paired by item."""

    arm: str
    over: str
    em: Maybe
    f1: Maybe


class Pair(Part):
    """EM and F1 as plain shares."""

    em: float | None = None
    f1: float | None = None


class Sides(Part):
    """Scores on a client's own categories and on the others."""

    own: Pair | None = None
    others: Pair | None = None


class Client(Part):
    """One client of one seed: what it holds, and every arm's scores seen from there."""

    seed: int
    client: str
    own: list[str] = Field(default_factory=list)
    rows: int | None = None
    arms: dict[str, Sides] = Field(default_factory=dict)


class Cost(Part):
    """What one run took."""

    arm: str
    seed: int | None = None
    client: str | None = None
    train_seconds: float | None = None
    evaluate_seconds: float | None = None
    tokens: float | None = None
    bytes_up: float | None = None
    bytes_down: float | None = None


class Even(Part):
    """How even a measure is over clients: the mean of the worst tenth, and Jain's index."""

    worst: float
    jain: float | None = None


class OwnScore(Part):
    """What one kind of model scored over clients, each counting once."""

    em: Estimate
    f1: Estimate
    fairness: dict[str, Even] = Field(default_factory=dict)


class OwnRows(Part):
    """Own models and the global one on the same rows; `gain` is over the first arm's global model."""

    clients: int
    own_model: OwnScore
    global_model: OwnScore
    gain: dict[str, Estimate] = Field(default_factory=dict)


class Own(Part):
    """Clients' own models of an arm, tuned for so many steps before they were scored."""

    arm: str
    tune: int = 0
    own_rows: OwnRows | None = None
    test_rows: OwnRows | None = None


class Summary(Part):
    """A whole study's outcome."""

    name: str
    seeds: list[int] = Field(default_factory=list)
    items: int = 0
    date: str = ""
    machine: dict[str, str | int | float | None] = Field(default_factory=dict)
    seconds: float | None = None
    arms: list[Arm] = Field(min_length=1)
    spread: dict[str, dict[str, Spread]] = Field(default_factory=dict)
    differences: list[Comparison] = Field(default_factory=list)
    ratios: list[Comparison] = Field(default_factory=list)
    clients: list[Client] = Field(default_factory=list)
    personal: list[Own] = Field(default_factory=list)
    cost: list[Cost] = Field(default_factory=list)


class Answer(Part):
    """One scored answer."""

    where: str
    labels: dict[str, str] = Field(default_factory=dict)
    question: str = ""
    context: str = ""
    reference: str = ""
    answer: str = ""
    correct: bool
    f1: float
    loss: float | None = None
    tokens: int = 0


class Scores(Part):
    """Every scored answer of a run."""

    round: int | None = None
    seconds: float | None = None
    items: list[Answer]


Read = TypeVar("Read", bound=Part)


def read(kind: type[Read], path: Path, remedy: str) -> Read:
    """The file as `kind`. Raises InputError naming the file, its first fault and the remedy."""
    try:
        return kind.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: damaged ({where}: {first['msg']}); {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {remedy}") from None
