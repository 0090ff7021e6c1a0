"""A study's folder made on the spot, and models that say what a test wants."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fedit.chat.models import Mount
from fedit.config import Plan
from fedit.recipe import load_plan, make_plan
from tests.tiny import CONFIG, finish, tiny

ARMS = {
    "fedit": {},
    "fedprox": {"algorithm": "fedprox"},
    "central": {"partition": {"clients": 1}, "federation": {"rounds": 1, "cohort": 1}},
    "local/client-01": {"seed": 1},
    "local/client-12": {"seed": 12},
}


def quick(output: Path, adapter: dict[str, object] | None = None, **changes: object) -> Plan:
    """One round that changes the model well."""
    plan = tiny(
        output,
        **{"federation": {"rounds": 1}, "local": {"steps": 4, "lr": 0.03}, **changes},
    )
    return make_plan({**plan.model_dump(mode="json"), **({"adapter": adapter} if adapter else {})})


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A study's folder as `fedit study` leaves it, of one seed."""
    folder = tmp_path_factory.mktemp("studies") / "demo"
    for arm, changes in ARMS.items():
        finish(quick(folder / "seed-0" / arm, **changes))
    plan = load_plan(folder / "seed-0" / "fedit" / "plan.yaml").model_dump(mode="json")
    tree = {
        "name": "demo",
        "plan": {**plan, "name": "demo", "output": None},
        "arms": {"base": {}, "local": {}, "fedit": {}, "fedprox": {}, "central": {}},
    }
    (folder / "study.yaml").write_text(json.dumps(tree))
    return folder


@pytest.fixture(scope="session")
def talkative(tmp_path_factory) -> Path:
    """A run whose model never ends by itself, and takes its time."""
    folder = tmp_path_factory.mktemp("runs") / "talkative"
    config = {**CONFIG, "num_hidden_layers": 8}
    finish(
        tiny(
            folder,
            model={"config": config},
            federation={"rounds": 1},
            local={"steps": 1, "lr": 1e-9},
        )
    )
    return folder


class Scripted:
    """Says a text instead of what its weights would, a token at a time."""

    def __init__(self, encode: object, text: str) -> None:
        self.ids = encode(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]

    def generate(self, *, input_ids, generation_config, streamer, stopping_criteria, **_: object):
        streamer.put(input_ids)
        for token in self.ids[: generation_config.max_new_tokens]:
            streamer.put(torch.tensor([token]))
            if bool(stopping_criteria(input_ids, None).all()):
                break
        streamer.end()


@pytest.fixture
def script(monkeypatch) -> object:
    """`script(text)`: from now on every model says just that."""

    def says(text: str) -> None:
        @contextmanager
        def wearing(self: Mount, adapter: object) -> Iterator[Scripted]:
            with self.lock:
                yield Scripted(self.loaded.base.tokenizer, text)

        monkeypatch.setattr(Mount, "wearing", wearing)

    return says
