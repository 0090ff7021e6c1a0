"""The base model that comes with fedit, as shipped: small, knowing, reading, and new to instructions."""

import math

import pytest

from fedit import load_plan
from fedit.build import make_template
from fedit.config import Model
from fedit.data.microworld import microworld
from fedit.data.microworld.probes import Probe, context_probes, echo_probes, fact_probes
from fedit.evaluate.generate import generate
from fedit.evaluate.loss import held_out_loss, overall
from fedit.train.model import EMBEDDED, Base, load_base
from fedit.train.prompts import Encoder
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(Model(base="microworld", device="cpu"), ())


def share(base: Base, probes: list[Probe]) -> float:
    """Of probes whose greedy continuation begins with what is expected."""
    tokenizer = base.tokenizer
    made = generate(
        base.model,
        [tokenizer(probe.prompt)["input_ids"] for probe in probes],
        max_new_tokens=28,
        stop_ids=[tokenizer.eos_token_id],
        pad_id=tokenizer.pad_token_id,
        batch_size=64,
        device="cpu",
    )
    texts = [tokenizer.decode(ids) + "\n" for ids in made]
    return sum(t.startswith(p.expected) for t, p in zip(texts, probes, strict=True)) / len(probes)


def test_it_is_small() -> None:
    files = {path.name: path.stat().st_size for path in EMBEDDED["microworld"].iterdir()}
    assert files["model.safetensors"] <= 8_000_000
    assert sum(files.values()) <= 8_500_000
    assert not [name for name in files if name.endswith((".bin", ".pt", ".py"))]


def test_its_parameters_are_at_most_four_million(base: Base) -> None:
    assert sum(parameter.numel() for parameter in base.model.parameters()) <= 4_000_000


@pytest.mark.parametrize(("language", "needed"), [("en", 0.98), ("es", 0.95)])
def test_it_knows_the_facts(base: Base, language: str, needed: float) -> None:
    assert share(base, fact_probes(language)) >= needed


@pytest.mark.parametrize(("language", "needed"), [("en", 0.95), ("es", 0.90)])
def test_it_reads_about_strangers(base: Base, language: str, needed: float) -> None:
    assert share(base, context_probes(language)) >= needed


@pytest.mark.parametrize(("language", "needed"), [("en", 0.95), ("es", 0.95)])
def test_it_says_again_what_it_was_told(base: Base, language: str, needed: float) -> None:
    assert share(base, echo_probes(language)) >= needed


def test_on_instructions_it_is_no_worse_than_a_guess(base: Base) -> None:
    """The base has not met the format: its loss there is about that of the uniform guess, not far worse."""
    plan = load_plan(REPOSITORY / "recipes" / "microworld.yaml")
    template = make_template(plan.template)
    assert template is not None
    encoder = Encoder(base.tokenizer, template, plan.template.max_length, False)
    rows = encoder.encode_all(microworld("dev")).encoded
    found = held_out_loss(
        base.model, rows, ["all"] * len(rows), batch=64, pad=encoder.pad_id, device=base.device
    )
    assert overall(found).mean <= math.log(len(base.tokenizer))
