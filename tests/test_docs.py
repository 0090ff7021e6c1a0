"""What README and guide say is run as they say it."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fedit
from fedit.cli import app
from fedit.core.errors import InputError
from tests.conftest import REPOSITORY
from tests.toy import Toy, last, toy_policy

PAGES = [REPOSITORY / "README.md", REPOSITORY / "docs" / "guide.md"]


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


@pytest.fixture
def outside(tmp_path, monkeypatch) -> Path:
    """A folder of a user's own, with the recipes beside."""
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, outside, capsys):
    [code] = blocks(page, "python")
    exec(compile(code, str(page), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[1]) for line in printed]
    assert [line.split()[0] for line in printed][:3] == ["0", "1", "2"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_algorithm_of_the_guide_to_them_runs_by_value_and_by_name(outside, monkeypatch):
    page = REPOSITORY / "docs" / "add-an-algorithm.md"
    method, use, _ = blocks(page, "python")
    longest = [line for line in method.splitlines() if line and "import" not in line]
    assert len(longest) <= 15
    here: dict = {}
    exec(compile(method, str(page), "exec"), here)
    exec(compile(use, str(page), "exec"), here)
    by_value = (outside / "runs/clipped/adapter/adapter_model.safetensors").read_bytes()

    entry = type("Entry", (), {"name": "clipped", "load": lambda self: here["clipped"]})()
    monkeypatch.setattr("fedit.build.algorithms.entry_points", lambda group: [entry])
    [words] = blocks(page, "yaml")
    changes = ["federation.rounds=2", "federation.cohort=2", "output=runs/named"]
    recipe = outside / "recipes" / "microworld.yaml"
    (outside / "named.yaml").write_text(recipe.read_text() + words)
    assert CliRunner().invoke(app, ["run", "named.yaml", *changes]).exit_code == 0
    assert (outside / "runs/named/adapter/adapter_model.safetensors").read_bytes() == by_value
    monkeypatch.setattr("fedit.build.algorithms.entry_points", lambda group: [])
    with pytest.raises(InputError, match=r"algorithm\.entry: no installed package .*'clipped'"):
        list(fedit.run(fedit.load_plan("named.yaml", ["output=runs/other"])))


def test_the_server_of_the_guide_to_algorithms_is_the_median(tmp_path):
    method, _, server = blocks(REPOSITORY / "docs" / "add-an-algorithm.md", "python")
    here: dict = {}
    exec(compile(method + server, "add-an-algorithm.md", "exec"), here)
    toy, fits = Toy(tmp_path), []
    fit = toy.trainer.fit
    toy.trainer.fit = lambda *given: fits.append(fit(*given)) or fits[-1]
    [done] = toy.run(here["medians"](toy.population), "loopback", until=1, policy=toy_policy(4))
    for name, found in last([done]).items():
        sent = np.stack([one.fitted[name].numpy() for one in fits])
        np.testing.assert_allclose(found.numpy(), np.median(sent, axis=0), rtol=1e-6)


@pytest.mark.slow
def test_the_readmes_recipe_and_commands_work_on_a_users_data(outside):
    """The README's own recipe, its base made small and its tokenizer's chat template replaced."""
    [recipe] = blocks(REPOSITORY / "README.md", "yaml")
    small = recipe.replace(
        "{base: Qwen/Qwen2.5-0.5B-Instruct}",
        "{config: {model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,"
        " num_attention_heads: 2, vocab_size: 400}}",
    )
    assert small != recipe
    small = small.replace("rounds: 20", "rounds: 2").replace("template: chat", "template: plain")
    (outside / "recipe.yaml").write_text(small)
    rows = [
        {
            "instruction": f"Say {i}",
            "response": f"{i}.",
            "category": f"c{i % 2}",
            "clinic": f"clinic {i % 4}",
        }
        for i in range(80)
    ]
    (outside / "study.yaml").write_text("plan: recipe.yaml\nclients: 2\n")
    for name in ("clinics.jsonl", "other.jsonl"):
        (outside / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    commands = next(b for b in blocks(REPOSITORY / "README.md", "") if "fedit run recipe.yaml" in b)
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "fedit"
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
    assert (outside / "skew.png").stat().st_size > 10_000
    assert (outside / "merged" / "model.safetensors").exists()


def test_every_key_of_the_plan_is_in_the_guide():
    guide = (REPOSITORY / "docs" / "guide.md").read_text()
    schema = fedit.Plan.model_json_schema()
    keys = set(schema["properties"])
    for section in schema["$defs"].values():
        keys |= set(section.get("properties", {}))
    assert len(keys) > 50
    missing = {key for key in keys if not re.search(rf"\b{key}\b", guide)}
    assert not missing


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, REPOSITORY / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_public_names_are_these():
    assert sorted(fedit.__all__) == [
        "Estimate",
        "FeditError",
        "Finished",
        "InputError",
        "Plan",
        "Run",
        "Study",
        "estimate",
        "load_plan",
        "load_study",
        "make_plan",
        "make_study",
        "run",
        "study",
    ]
    assert all(getattr(fedit, name) for name in fedit.__all__)
