"""fedit compare: algorithms on the same data, start and budget, each tuned by the same grid where asked."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedit.cli import app
from fedit.core.errors import InputError
from fedit.recipe import dump_plan, make_plan
from fedit.studies.versus import versus
from tests.studies.small import tree
from tests.tiny import tiny


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    plan = {**tree(folder)["plan"], "algorithm": {"name": "fedprox", "mu": 0.7}}
    path = folder / "small.yaml"
    path.write_text(dump_plan(make_plan(plan)))
    return path


def journal(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def compare(recipe: Path, *words: str):
    output = recipe.parent / "out"
    command = ["compare", str(recipe), "--output", str(output), *words]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def test_each_algorithm_runs_over_each_seed_and_is_set_against_the_first(recipe):
    done = compare(recipe, "--algorithms", "fedavg,fedprox,rolora", "--seeds", "2")
    assert done.exit_code == 0, done.output
    folder = recipe.parent / "out"
    summary = json.loads((folder / "summary.json").read_text())
    assert [arm["name"] for arm in summary["arms"]] == ["fedavg", "fedprox", "rolora"]
    assert summary["seeds"] == [0, 1]
    assert "gains over fedavg" in done.output
    plan = (folder / "seed-1" / "fedprox" / "plan.yaml").read_text()
    assert "mu: 0.7" in plan, "the plan's own algorithm keeps its parameters"
    costs = {one["arm"]: one["bytes_up"] for one in summary["cost"]}
    assert costs["rolora"] < 0.7 * costs["fedavg"]
    starts = {
        journal(folder / "seed-0" / arm)[0]["evaluation"]["loss"]
        for arm in ("fedavg", "fedprox", "rolora")
    }
    assert len(starts) == 1

    again = compare(
        recipe, "--algorithms", "fedavg,fedprox,rolora,ffa_lora", "--seeds", "2", "--resume"
    )
    assert again.exit_code == 0, again.output
    assert "ffa_lora" in again.output


def test_rates_are_chosen_on_dev_rows_for_each(recipe):
    output, dev = str(recipe.parent / "tuned"), f"data.test={recipe.parent / 'dev.jsonl'}"
    words = ["compare", str(recipe), "--output", output, "--seeds", "1", "--json"]
    words += ["--algorithms", "fedavg,fedprox", "--rates", "1e-5,1e-2", "--dev", dev]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    summary = json.loads(done.stdout.splitlines()[-1])
    tried = json.loads((recipe.parent / "tuned" / "tune" / "tune.json").read_text())
    best = {part["arm"]: part["best"]["local.lr"] for part in tried["arms"]}
    assert {arm["name"]: arm["lr"] for arm in summary["arms"]} == best


def test_what_cannot_be_compared_is_refused(recipe, tmp_path):
    plan = tiny(tmp_path)
    with pytest.raises(InputError, match="each once"):
        versus(plan, ["fedavg", "fedavg"], 1, output=str(tmp_path))
    with pytest.raises(InputError, match="--dev"):
        versus(plan, ["fedavg"], 1, rates=[1e-3], output=str(tmp_path))
    for name, hint in (("nosuch", ""), ("fedprx", "did you mean fedprox? ")):
        said = rf"--algorithms: there is no algorithm '{name}'; {re.escape(hint)}known here: "
        with pytest.raises(InputError, match=said + "fedavg, .*, external$"):
            versus(plan, ["fedavg", name], 1, output=str(tmp_path))
    with pytest.raises(InputError, match="scaffold takes a client's way"):
        versus(plan, ["fedavg", "scaffold"], 1, output=str(tmp_path))
    for name, key in (("fedper", "personal"), ("external", "entry")):
        with pytest.raises(
            InputError, match=rf"{name} needs algorithm.{key}.*fedavg.*name: {name}, {key}"
        ):
            versus(plan, ["fedavg", name], 1, output=str(tmp_path))
    with pytest.raises(InputError, match=r"optimizer adamw, momentum 0 and clip 1\.0: set"):
        versus(plan, ["fedavg", "scaffold"], 1, output=str(tmp_path))


@pytest.mark.parametrize("name", ["external", "clipped"])
def test_the_plans_own_method_of_another_package_keeps_its_options(name, monkeypatch, tmp_path):
    monkeypatch.setattr("fedit.studies.versus.entries", lambda: {"clipped": None})
    own = {"name": "external", "entry": "clipped", "options": {"most": 3}}
    plan = tiny(tmp_path, algorithm=own)
    arms = versus(plan, ["fedavg", name], 1, output=str(tmp_path / "out")).arms
    assert {key: arms[name]["algorithm"][key] for key in own} == own
    assert arms["fedavg"]["algorithm"] == {"name": "fedavg"}


def test_methods_of_other_packages_are_named_by_their_entry_points(monkeypatch, tmp_path):
    theirs = {"clipped": None, "other": None, "fedavg": None}  # a name of ours stays ours
    monkeypatch.setattr("fedit.studies.versus.entries", lambda: theirs)
    study = versus(tiny(tmp_path), ["fedavg", "other", "clipped"], 1, output=str(tmp_path))
    assert {name: arm["algorithm"] for name, arm in study.arms.items()} == {
        "fedavg": tiny(tmp_path).algorithm.model_dump(),
        "other": {"name": "external", "entry": "other"},
        "clipped": {"name": "external", "entry": "clipped"},
    }


def test_a_package_that_is_not_installed_is_told_before_any_arm_trains(recipe):
    output = recipe.parent / "nowhere"
    words = [
        "compare",
        str(recipe),
        "algorithm={name: external, entry: nowhere}",
        "--output",
        str(output),
    ]
    done = CliRunner().invoke(app, [*words, "--algorithms", "fedavg,external"])
    assert done.exit_code != 0
    assert "no installed package has an entry point 'nowhere'" in str(done.exception)
    assert not (output / "seed-0").exists()
