"""The runs that a study comes to, before any is run."""

import json

import pytest
from typer.testing import CliRunner

from fedit import InputError
from fedit.cli import app
from fedit.studies.jobs import choose, plan_jobs
from tests.studies.small import small, tree


def jobs(folder, **changes):
    return plan_jobs(small(folder, **changes), folder / "study")


@pytest.mark.parametrize("more", [[], ["--tune"]], ids=["runs", "tuning"])
def test_a_dry_run_is_json_where_that_is_asked(more, tmp_path):
    changes = {"tune": {"local.lr": [1e-3, 1e-2]}, "tune_seeds": [7], "seeds": [3]}
    asked = tree(tmp_path, **changes)
    asked["dev"] = {"data.test": str(tmp_path / "dev.jsonl")}
    file = tmp_path / "study.json"
    file.write_text(json.dumps(asked))
    words = ["study", str(file), "--dry-run", *more]
    told = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).stdout
    lines = CliRunner().invoke(app, words, catch_exceptions=False).stdout.splitlines()
    runs = json.loads(told)["runs"]
    assert len(runs) == len(lines)
    assert {run["seed"] for run in runs} == ({7} if more else {None, 3})
    assert {str(run["tried"]) for run in runs} == (
        {"{'local.lr': 0.001}", "{'local.lr': 0.01}"} if more else {"{}"}
    )
    for run, line in zip(runs, lines, strict=True):
        assert line.endswith(f"{run['place']}: {run['samples']:,} samples")


def with_plan(folder, **sections):
    return {"plan": {**tree(folder)["plan"], **sections}}


def test_every_arm_has_its_runs_and_its_place(tmp_path):
    planned = jobs(tmp_path, seeds=[3, 4], clients=2)
    places = [str(job.place) for job in planned.jobs]
    assert places[0] == "base"
    assert len(places) == len(set(places)) == 1 + 2 * (2 + 1 + 1)
    assert [alone.seed for alone in planned.alone] == [3, 3, 4, 4]
    for job in planned.jobs:
        assert job.folder == tmp_path / "study" / job.place
        assert job.seed is None or job.plan.seed == job.seed
        assert job.plan.data == planned.jobs[0].plan.data


def test_a_client_alone_and_all_rows_see_what_the_federation_sees(tmp_path):
    by_arm = {job.arm: job for job in jobs(tmp_path).jobs}
    assert by_arm["fedit"].samples == 3 * 2 * 2 * 4
    for arm in ("local", "central"):
        plan = by_arm[arm].plan
        assert by_arm[arm].samples == by_arm["fedit"].samples
        assert (plan.local.steps, plan.local.keep_optimizer) == (4, True)
        assert (plan.federation.rounds, plan.federation.cohort) == (3, 1)
    assert by_arm["local"].plan.federation.only == [by_arm["local"].client]
    assert by_arm["local"].plan.partition == by_arm["fedit"].plan.partition
    assert by_arm["central"].plan.partition.clients == 1
    assert by_arm["central"].plan.federation.only is None


def test_epochs_become_steps(tmp_path):
    local = {"epochs": 1, "batch": 5}
    by_arm = {job.arm: job for job in jobs(tmp_path, **with_plan(tmp_path, local=local)).jobs}
    assert by_arm["fedit"].samples == 3 * 32
    assert by_arm["central"].plan.local.steps == 6
    assert by_arm["central"].samples == 3 * 30, "steps of five come closest to 32 with 30"
    assert by_arm["local"].samples == 3 * 32, "16 rows in batches of 5, 5, 5 and 1, twice"


def test_an_algorithm_is_for_federations_only(tmp_path):
    arms = {"local": {}, "prox": {}, "central": {}}
    changes = with_plan(tmp_path, algorithm={"name": "fedprox"})
    by_arm = {job.arm: job for job in jobs(tmp_path, arms=arms, **changes).jobs}
    names = {arm: job.plan.algorithm.name for arm, job in by_arm.items()}
    assert names == {"local": "fedavg", "prox": "fedprox", "central": "fedavg"}


def test_held_out_rows_are_the_same_for_every_seed(tmp_path):
    data = {"train": tree(tmp_path)["plan"]["data"]["train"], "holdout": {"size": 8}}
    planned = jobs(tmp_path, seeds=[5, 6], dev=None, **with_plan(tmp_path, data=data))
    assert {job.plan.data.holdout.seed for job in planned.jobs} == {0}


def test_clients_are_spread_over_the_population_and_drawn_by_the_seed():
    population = [f"client-{i:02}" for i in range(20)]
    drawn = choose(population, 4, 0)
    assert [int(client[-2:]) // 5 for client in drawn] == [0, 1, 2, 3]
    assert drawn == choose(population, 4, 0)
    assert len({tuple(choose(population, 4, seed)) for seed in range(9)}) > 4
    assert choose(population, "all", 0) == choose(population, 20, 3) == population
    with pytest.raises(InputError, match="21 is more than the 20 clients there are"):
        choose(population, 21, 0)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"partition": {"clients": 4, "validation": 0.2}}, "plan.partition.validation"),
        ({"federation": {"only": ["client-00"]}}, "plan.federation.only"),
        ({"data": {"train": "microworld"}}, "plan.data: has no held-out rows"),
        (
            {"partition": {"by": "key", "column": "size", "minimum": 16, "small": "drop"}},
            "2 clients are left out, whose rows would be among all rows",
        ),
    ],
)
def test_a_plan_that_cannot_be_compared_fairly_is_refused(sections, said, tmp_path):
    changes = with_plan(tmp_path, **sections)
    path = tmp_path / "train.jsonl"
    lines = path.read_text().splitlines()
    sizes = ["a"] * 20 + ["b"] * 20 + ["c"] * 12 + ["d"] * 12
    path.write_text(
        "".join(f'{x[:-1]}, "size": "{s}"}}\n' for x, s in zip(lines, sizes, strict=True))
    )
    study = small_from(tmp_path, path.read_text(), changes)
    with pytest.raises(InputError) as error:
        plan_jobs(study, tmp_path / "study")
    assert said in str(error.value)


def small_from(folder, rows, changes):
    study = small(folder, **changes)
    (folder / "train.jsonl").write_text(rows)  # `small` writes its own
    return study


def test_a_rule_that_nobody_knows_is_refused_before_anything_runs(tmp_path):
    study = small(tmp_path)
    test = tmp_path / "test.jsonl"
    test.write_text(test.read_text() + '{"instruction": "q", "response": "a", "check": "some"}\n')
    with pytest.raises(InputError, match=r"test.jsonl:9: check 'some' is no rule"):
        plan_jobs(study, tmp_path / "study")
