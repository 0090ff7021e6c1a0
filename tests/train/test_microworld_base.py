"""The base model that comes with fedit, as shipped: small, knowing, reading, and new to instructions."""

import math

import pytest

from fedit import load_plan
from fedit.build import make_template
from fedit.config import Model
from fedit.data.microworld import microworld
from fedit.data.microworld.probes import NEEDED, probes
from fedit.evaluate.loss import held_out_loss, overall
from fedit.evaluate.probing import passed
from fedit.train.forward import Forward
from fedit.train.making import make_model
from fedit.train.model import EMBEDDED, Base, load_base
from fedit.train.prompts import Encoder
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(Model(base="microworld", device="cpu"), ())


def test_it_is_small() -> None:
    files = {path.name: path.stat().st_size for path in EMBEDDED["microworld"].iterdir()}
    assert files["model.safetensors"] <= 8_000_000
    assert sum(files.values()) <= 8_500_000
    assert not [name for name in files if name.endswith((".bin", ".pt", ".py"))]


def test_its_parameters_are_at_most_four_million(base: Base) -> None:
    assert sum(parameter.numel() for parameter in base.model.parameters()) <= 4_000_000


@pytest.mark.parametrize("kind", NEEDED)
def test_it_passes_its_probes(base: Base, kind: str) -> None:
    assert len(probes(kind)) >= 200
    assert passed(base.model, base.tokenizer, probes(kind)) >= NEEDED[kind]


def test_a_base_that_knows_nothing_passes_none(base: Base) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    empty = make_model(config, base.tokenizer)
    assert max(passed(empty, base.tokenizer, probes(kind)[:20]) for kind in NEEDED) == 0


def test_on_instructions_it_is_no_worse_than_a_guess(base: Base) -> None:
    """The base has not met the format: its loss there is about that of the uniform guess, not far worse."""
    plan = load_plan(REPOSITORY / "recipes" / "microworld.yaml")
    template = make_template(plan.template)
    assert template is not None
    encoder = Encoder(base.tokenizer, template, plan.template.max_length, False)
    rows = encoder.encode_all(microworld("dev")).encoded
    forward = Forward(base.model, encoder.pad_id, base.device)
    found = held_out_loss(forward, rows, ["all"] * len(rows), batch=64)
    assert overall(found).mean <= math.log(len(base.tokenizer))
