"""Every recipe is checked, and the ones made for larger machines run here on a small model and local rows."""

from pathlib import Path

import pytest

from fedit import load_plan, load_study
from fedit.runner import Run
from fedit.studies.jobs import plan_jobs
from tests.conftest import REPOSITORY
from tests.tiny import CONFIG

EVERY = sorted((REPOSITORY / "recipes").glob("*.yaml"))
STUDIES = [path for path in EVERY if "\nplan:" in path.read_text()]
RECIPES = [path for path in EVERY if path not in STUDIES]
SMALL = [
    f"model={{config: {CONFIG}}}",
    "adapter.targets=all-linear",
    "data.limit=1000",
    "federation.rounds=2",
    "template.max_length=64",
    "threads=1",
]


def test_there_are_recipes():
    names = {path.name for path in EVERY}
    assert {
        "demo.yaml",
        "multitask.yaml",
        "alpaca.yaml",
        "shepherd-readme.yaml",
        "fedit-paper.yaml",
        "study-multitask.yaml",
    } <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_command_and_is_a_plan(path: Path):
    opening = path.read_text().partition("\nmodel:")[0]
    assert f"fedit run recipes/{path.name}" in opening
    assert load_plan(path).name == path.stem


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_opens_with_its_command_and_is_a_study(path: Path):
    opening = path.read_text().partition("\nplan:")[0]
    assert f"fedit study recipes/{path.name}" in opening
    assert load_study(path).name == path.stem


def test_the_multitask_study_comes_to_runs_on_its_rows(shared, tmp_path):
    data = shared / "data" / "multitask"
    words = [f"plan.data.train={data / 'train.jsonl'}", f"plan.data.test={data / 'test.jsonl'}"]
    study = load_study(REPOSITORY / "recipes" / "study-multitask.yaml", words)
    planned = plan_jobs(study, tmp_path)
    samples = {job.arm: job.samples for job in planned.jobs}
    assert samples["fedit"] == samples["local"] == samples["central"] == 6 * 6 * 5 * 8
    dev = plan_jobs(study, tmp_path, dev=True, tried={"local.lr": 1e-3})
    assert len(dev.corpus.test) == 7 * 20


def final_losses(recipe: str, output: Path, *changes: str) -> tuple[float, float]:
    words = [*SMALL, f"output={output}", *changes]
    with Run(load_plan(REPOSITORY / "recipes" / recipe, words)) as run:
        records = [finished.record["evaluation"] for finished in run.rounds() if finished.loss]
    return records[0]["loss"], records[-1]["loss"]


def test_the_papers_recipe_runs_on_a_small_model_and_local_rows(shared, tmp_path):
    train = shared / "data" / "multitask" / "train.jsonl"
    first, last = final_losses(
        "fedit-paper.yaml",
        tmp_path / "run",
        f"data.train={train}",
        "federation.cohort=3",
        "local.lr=1e-2",
    )
    assert last < first


def test_shepherds_recipe_runs_on_a_folder_of_its_own_kind(shared, tmp_path):
    """local_training_N.json a client, rows in Dolly's columns, global_test.json beside them."""
    import json

    lines = (shared / "data" / "multitask" / "train.jsonl").read_text().splitlines()[:120]
    rows = [json.loads(line) for line in lines]
    folder = tmp_path / "data" / "10"
    folder.mkdir(parents=True)
    for client in range(10):
        (folder / f"local_training_{client}.json").write_text(
            json.dumps(rows[client * 10 : client * 10 + 10])
        )
    (folder / "global_test.json").write_text(json.dumps(rows[100:]))
    (folder / "global_training.json").write_text(json.dumps(rows[:100]))
    first, last = final_losses(
        "shepherd-readme.yaml",
        tmp_path / "run",
        f"data.train={folder}",
        f"data.test={folder / 'global_test.json'}",
        "data.holdout=null",
        "partition={by: key, column: file}",
        "federation.cohort=0.3",
        "local.lr=1e-2",
    )
    assert last < first
