"""A study file: what it may say, what is refused, and the plans it comes to."""

import pytest

from fedit import InputError, load_study, make_study
from fedit.recipe import arm_plan, dump_plan, grid
from tests.conftest import REPOSITORY
from tests.studies.small import small, tree

DEMO = REPOSITORY / "recipes" / "multitask.yaml"


def test_a_study_reads_its_recipe_from_beside_itself(tmp_path, monkeypatch):
    (tmp_path / "beside").mkdir()
    rows = tmp_path / "beside" / "rows.jsonl"
    rows.write_text('{"instruction": "q", "response": "a"}\n')
    (tmp_path / "beside" / "plain.yaml").write_text(
        "model: {base: some/base}\ndata: {train: rows.jsonl}\n"
    )
    file = tmp_path / "beside" / "compare.yaml"
    file.write_text("plan: plain.yaml\ndev: {data.test: rows.jsonl}\n")
    monkeypatch.chdir(tmp_path)
    study = load_study("beside/compare.yaml", ["plan.federation.rounds=5", "seeds=[7,8]"])
    assert (study.name, study.plan.name, study.seeds) == ("compare", "plain", [7, 8])
    assert study.plan.federation.rounds == 5
    assert study.plan.data.train == str(rows)
    assert study.dev == {"data.test": str(rows)}
    assert str(study.folder) == "runs/compare"
    assert [arm["kind"] for arm in study.arms.values()] == ["base", "local", "federated", "central"]


def test_words_reach_into_arms_dev_and_tune(tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text(dump_plan(small(tmp_path)))
    study = load_study(
        file,
        [
            "arms.fedit.local.lr=1",
            "arms.new.algorithm=fedprox",
            "tune.adapter.rank=[2,4]",
            "dev.seed=4",
        ],
    )
    assert study.arms["fedit"] == {"kind": "federated", "local.lr": 1}
    assert arm_plan(study, "new").algorithm.name == "fedprox"
    assert study.dev["seed"] == 4
    assert len(grid(study)) == 4


def test_what_is_written_reads_back_equal(tmp_path):
    study = small(tmp_path, arms={"base": None, "fedit": {"partition": {"by": "iid"}}})
    (tmp_path / "study.yaml").write_text(dump_plan(study))
    assert load_study(tmp_path / "study.yaml") == study


def test_an_arm_is_the_plan_with_its_changes(tmp_path):
    study = small(tmp_path, arms={"fedit": {"local.epochs": 2, "algorithm": "fedprox"}})
    plan = arm_plan(study, "fedit", tried={"local.lr": 0.5})
    assert (plan.local.epochs, plan.local.steps, plan.local.lr) == (2, None, 0.5)
    assert plan.algorithm.name == "fedprox"
    assert plan.threads == 1
    assert arm_plan(study, "fedit", dev=True).data.test.endswith("dev.jsonl")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": [1]}, "unknown key 'seed': did you mean 'seeds'?"),
        ({"federation": {}}, "unknown key 'federation': did you mean 'plan.federation'?"),
        ({"seed": [1], "cliens": 2}, "did you mean 'seeds'?; unknown key 'cliens': did you mean"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "a seed stands there twice"),
        ({"clients": 0}, "must be a whole number ≥ 1, or all"),
        ({"clients": "some"}, "must be a whole number ≥ 1, or all"),
        (
            {"arms": {"fedit": {"local.lrr": 1}}},
            "arms.fedit: local: unknown key 'lrr': did you mean",
        ),
        ({"arms": {"fedit": {"local.lr": -1}}}, "arms.fedit: local.lr"),
        ({"arms": {"fedit": {"kind": "fed"}}}, "fedit.kind: 'fed' is none of base, local"),
        ({"arms": {"Fed IT": {}}}, "no name"),
        ({"arms": {}}, "arms"),
        ({"arms": {"fedit": 3}}, "arms.fedit"),
        ({"arms": {"base": {"local.lr": 1}}}, "the base is not trained"),
        ({"arms": {"base": {}, "zero": {"kind": "base"}}}, "only one arm can be of kind base"),
        ({"arms": {"central": {"local.steps": 3}}}, "central: local.steps is set by the study"),
        ({"arms": {"local": {"federation.rounds": 3}}}, "federation.rounds is set by the study"),
        ({"arms": {"fedit": {"data.limit": 3}}}, "change it in plan.data.limit"),
        ({"arms": {"fedit": {"seed": 3}}}, "seed is the same for every arm"),
        ({"tune": {"data.limit": [3]}}, "tune: data.limit is the same for every arm"),
        ({"tune": {"local.lr": []}}, "local.lr needs one or more values"),
        ({"tune": {"local.lr": [-1.0]}}, "tune: local.lr"),
        ({"dev": {"data.tset": None}}, "dev: data: unknown key 'tset'"),
        ({"workers": 0}, "workers"),
        ({"plan": {"model": {"config": {"model_type": "llama"}}}}, "plan.data: is required"),
    ],
)
def test_mistakes_are_refused_by_key_and_value(changes, said, tmp_path):
    with pytest.raises(InputError) as error:
        make_study(tree(tmp_path, **changes), "study x")
    assert said in str(error.value)


def test_missing_files_and_recipes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"study .*none.yaml: cannot be read"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "study.yaml").write_text("plan: none.yaml\n")
    with pytest.raises(InputError, match=r"recipe none.yaml: cannot be read"):
        load_study(tmp_path / "study.yaml")
