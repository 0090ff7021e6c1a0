"""Federated preference tuning as whole runs, and what is no pair."""

import json
import math
import re
from pathlib import Path

import pytest

import fedit
from fedit import FeditError, InputError, make_plan, run
from tests.conftest import REPOSITORY
from tests.tiny import adapter_bytes, finish, journal, tiny

ROWS = [
    {"prompt": f"Say {i}", "chosen": f"Yes, {i} it is.", "rejected": f"No! Not {i + 3}."}
    for i in range(24)
]


def write(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def dpo(folder: Path, rows=ROWS, **changes):
    data = {"train": write(folder / "pairs.jsonl", rows), "holdout": {"size": 4}}
    local = {"objective": "dpo", "lr": 3e-3, **changes.pop("local", {})}
    changes = {"partition": {"clients": 2}, "federation": {"rounds": 2}, **changes}
    return tiny(folder / "run", data=data, local=local, **changes)


SGD = {"optimizer": "sgd", "clip": None, "lr": 0.05}


@pytest.mark.parametrize(
    ("algorithm", "local"),
    [
        ("fedavg", {}),
        ({"name": "fedprox", "mu": 0.1}, {}),
        ("ditto", {}),
        ("scaffold", SGD),
        ("fedsam", {}),
        ("fedex_lora", {}),
        ("afl", {}),
    ],
    ids=str,
)
def test_algorithms_learn_to_prefer(tmp_path, algorithm, local):
    finish(dpo(tmp_path, algorithm=algorithm, local=local))
    start, *_, end = journal(tmp_path / "run")
    assert start["evaluation"]["loss"] == pytest.approx(math.log(2), abs=0.05)
    assert end["evaluation"]["loss"] < start["evaluation"]["loss"]
    assert end["evaluation"]["accuracy"] > 0.5
    assert end["evaluation"]["margin"] > 0
    assert end["evaluation"]["pairs"] == end["evaluation"]["by"]["all"]["pairs"] == 4
    mean = sum(m["loss"] * m["pairs"] for m in end["clients"].values())
    assert end["loss"] == pytest.approx(mean / sum(m["pairs"] for m in end["clients"].values()))
    assert 0 <= end["accuracy"] <= 1


def test_a_run_stopped_and_resumed_gives_the_same_bytes(tmp_path):
    settings = {
        "local": {"keep_optimizer": True, "micro_batch": 2},
        "partition": {"clients": 2, "validation": 0.2},
        "evaluation": {"clients": True},
        "algorithm": "fedex_lora",
    }
    (tmp_path / "whole").mkdir()
    whole = finish(dpo(tmp_path / "whole", **settings))
    plan = dpo(tmp_path, **settings)
    for done in run(plan):
        if done.round == 1:
            break
    assert finish(plan, resume=True) == whole == adapter_bytes(tmp_path / "run")
    scores = [
        [record["evaluation"] for record in journal(folder / "run")]
        for folder in (tmp_path, tmp_path / "whole")
    ]
    assert scores[0] == scores[1]
    assert all(len(scored["clients"]) == 2 for scored in scores[0])


def test_the_bytes_and_tokens_of_a_run_are_foretold(tmp_path):
    plan = dpo(
        tmp_path, federation={"rounds": 1, "cohort": 1.0}, local={"steps": None, "epochs": 1}
    )
    found = fedit.estimate(plan, calibrated=False).to_dict()
    finish(plan)
    [_, record] = journal(tmp_path / "run")
    assert found["tokens"]["run"] == record["tokens"]
    assert found["bytes"]["down"]["run"] == record["bytes_down"]
    # loss, accuracy, margin and seconds travel as numbers of more or fewer digits
    assert found["bytes"]["up"]["run"] == pytest.approx(record["bytes_up"], abs=48 * 2)


def test_the_guides_example_runs_and_can_be_scored(tmp_path, monkeypatch):
    guide = (REPOSITORY / "docs" / "guide.md").read_text()
    [rows] = re.findall(r"^```jsonl\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    [recipe] = re.findall(
        r"^```yaml\n(data: \{train: pairs.*?)^```$", guide, re.DOTALL | re.MULTILINE
    )
    assert len(rows.splitlines()) == 5
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text(rows)
    Path("recipe.yaml").write_text(recipe + "model: {base: any}\n")
    told = fedit.load_plan(Path("recipe.yaml"))
    plan = tiny(tmp_path / "run", partition={"clients": 2}).model_dump()
    plan |= {"data": told.data.model_dump(), "local": told.local.model_dump()}
    finish(make_plan(plan))
    assert journal(tmp_path / "run")[-1]["evaluation"]["pairs"] == 1
    from fedit.score import score

    found = score(tmp_path / "run")
    assert (found["rows"], found["tokens"] > 3) == (1, True)


# ---- what is no pair


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": ...}, "pairs.jsonl:3: no column 'rejected'"),
        ({"chosen": ...}, "pairs.jsonl:3: no column 'chosen'"),
        ({"rejected": " "}, "pairs.jsonl:3: the answer (column 'rejected') is empty"),
        ({"chosen": ["a"]}, "pairs.jsonl:3: the answer (column 'chosen') is a list, not text"),
        (
            {"rejected": " Yes, 2 it is.\n"},
            "pairs.jsonl:3: the chosen and the rejected answer are equal",
        ),
    ],
)
def test_a_bad_pair_is_named(tmp_path, change, reason):
    rows = [dict(row) for row in ROWS]
    rows[2] = {k: v for k, v in (rows[2] | change).items() if v is not ...}
    with pytest.raises(InputError, match=re.escape(reason)):
        finish(dpo(tmp_path, rows))


def test_objective_and_data_must_agree(tmp_path):
    single = [{"prompt": f"Say {i}", "response": str(i)} for i in range(24)]
    with pytest.raises(InputError, match=r"local\.objective dpo .* pairs\.jsonl:1 of data\.train"):
        finish(dpo(tmp_path, single))
    with pytest.raises(InputError, match=r"local\.objective sft .* pairs\.jsonl:1 of data\.train"):
        finish(dpo(tmp_path, local={"objective": "sft"}))
    plan = dpo(tmp_path, local={"objective": "sft"})
    columns = {"columns": {"instruction": "prompt", "response": "chosen"}}
    tree = plan.model_dump()
    tree["data"] |= columns
    assert finish(make_plan(tree)), "the chosen answers alone can be learned"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"local": {"objective": "sft", "beta": 0.2}}, "beta belongs to objective: dpo"),
        ({"local": {"beta": 0.0}}, "beta"),
        ({"adapter": {"kind": "full"}}, "objective dpo compares with the base.*adapter.kind full"),
        ({"template": {"train_on_inputs": True}}, "train_on_inputs changes nothing"),
    ],
)
def test_a_plan_that_cannot_prefer_is_refused(tmp_path, changes, reason):
    if "adapter" in changes:
        plan = dpo(tmp_path).model_dump()
        with pytest.raises(FeditError, match=reason):
            make_plan(plan | changes)
        return
    with pytest.raises(FeditError, match=reason):
        dpo(tmp_path, **changes)
