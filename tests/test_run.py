"""A whole run: what it leaves behind, and that stopping, resuming, seeds and engines keep their word."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fedit
from fedit import InputError, run
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedavgm import Momentum
from fedit.build import job
from fedit.core.rounds import TooFewReplies
from fedit.core.tree import same
from fedit.personal import personal
from fedit.runner import Run
from tests.tiny import adapter_bytes, finish, journal, tiny


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("run") / "usual"
    return folder, finish(tiny(folder))


def test_the_folder_holds_what_is_promised(done):
    folder, _ = done
    names = {path.name for path in folder.iterdir()}
    assert {
        "plan.yaml",
        "environment.json",
        "journal.jsonl",
        "checkpoints",
        "tokens",
        "adapter",
    } <= names
    assert fedit.load_plan(folder / "plan.yaml") == tiny(folder)
    known = json.loads((folder / "environment.json").read_text())
    assert known["versions"]["torch"] == torch.__version__
    assert known["data"]
    assert len(known["base"]) == 64
    assert sum(known["clients"].values()) == 72
    assert known["parameters"]["trained"] < known["parameters"]["all"]


def test_the_journal_tells_each_round(done):
    records = journal(done[0])
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    assert "cohort" not in records[0], "round 0 is the untrained start"
    for record in records[1:]:
        assert len(record["cohort"]) == len(record["clients"]) == len(set(record["cohort"])) == 2
        assert set(record["weights"]) == set(record["cohort"])
        assert record["bytes_up"] > 0 < record["bytes_down"]
        assert record["memory_mib"] > 0
        assert {"train", "server", "evaluate", "round"} <= set(record["seconds"])
    by = records[-1]["evaluation"]["by"]
    assert sum(group["tokens"] for group in by.values()) == records[-1]["evaluation"]["tokens"]


def test_the_held_out_loss_falls(done):
    losses = [record["evaluation"]["loss"] for record in journal(done[0])]
    assert losses[-1] < losses[0] - 0.1


def test_plain_peft_loads_the_adapter_with_the_same_logits(done):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from fedit.score import load_run

    folder, _ = done
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    model = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    ids = tokenizer("What is the capital of France?", return_tensors="pt").input_ids
    ours = load_run(folder).adapted.model.eval()
    with torch.no_grad():
        theirs, mine = model(input_ids=ids).logits, ours(input_ids=ids).logits
        with model.disable_adapter():
            untuned = model(input_ids=ids).logits
    torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-5)  # ours is fused
    assert not torch.allclose(theirs, untuned)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_cohorts(done, tmp_path):
    folder, usual = done
    assert finish(tiny(tmp_path / "again")) == usual
    assert finish(tiny(tmp_path / "other", seed=1)) != usual
    cohorts = [[r["cohort"] for r in journal(f)[1:]] for f in (folder, tmp_path / "other")]
    assert cohorts[0] != cohorts[1]


def test_a_run_through_bytes_is_the_same_run(done, tmp_path):
    assert finish(tiny(tmp_path / "bytes", engine="loopback")) == done[1]


@pytest.mark.parametrize("keep", [False, True], ids=["fresh", "kept-optimizer"])
def test_stopped_after_a_round_and_resumed_is_never_stopped(keep, tmp_path):
    local = {"keep_optimizer": keep}
    usual = finish(tiny(tmp_path / "usual", local=local))
    plan = tiny(tmp_path / "stopped", local=local)
    for finished in run(plan):
        if finished.round == 1:
            break
    assert not (tmp_path / "stopped" / "adapter").exists()
    assert finish(plan, resume=True) == usual
    assert [r["round"] for r in journal(tmp_path / "stopped")] == [0, 1, 2, 3]


def test_resuming_a_finished_run_changes_nothing(done):
    folder, usual = done
    assert list(run(tiny(folder), resume=True)) == []
    assert adapter_bytes(folder) == usual


def test_a_longer_plan_goes_on_where_the_schedule_allows_it(tmp_path):
    plan = tiny(tmp_path / "short", federation={"rounds": 1})
    finish(plan)
    longer = tiny(tmp_path / "short", federation={"rounds": 3})
    assert finish(longer, resume=True) == finish(tiny(tmp_path / "long"))


def test_another_plan_is_refused_naming_the_difference(done):
    folder, _ = done
    with pytest.raises(InputError, match=r"local\.lr: 0\.01 → 0\.02"):
        Run(tiny(folder, local={"lr": 2e-2}), resume=True)


def test_a_folder_with_a_run_is_refused_without_resume(done):
    with pytest.raises(InputError, match="--resume"):
        Run(tiny(done[0]))


def test_two_processes_cannot_share_a_folder(tmp_path):
    with Run(tiny(tmp_path / "one")), pytest.raises(InputError, match="another process"):
        Run(tiny(tmp_path / "one"), resume=True)


def test_data_that_changed_since_is_refused(tmp_path):
    rows = [{"instruction": f"Say {i}", "response": f"It is {i}"} for i in range(40)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = tiny(tmp_path / "run", data={"train": str(file)})
    next(iter(run(plan)))
    file.write_text(file.read_text().replace("Say 3", "Tell 3"))
    with pytest.raises(InputError, match=r"data has changed .*rows\.jsonl"):
        Run(plan, resume=True)


def test_a_refused_run_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="no such"):
        Run(tiny(tmp_path / "run", data={"train": str(tmp_path / "missing.jsonl")}))
    assert not (tmp_path / "run").exists()


def test_a_run_refused_after_its_rows_were_tokenised_leaves_nothing_behind(tmp_path, monkeypatch):
    kept = []
    real = job.held_rows
    monkeypatch.setattr(
        job,
        "held_rows",
        lambda *given: kept.extend(tmp_path.rglob("t*.safetensors")) or real(*given),
    )
    with pytest.raises(InputError, match=r"evaluation\.by"):
        Run(tiny(tmp_path / "run", evaluation={"by": "categori"}))
    assert len(kept) == 2
    assert not (tmp_path / "run").exists()


def test_more_clients_asked_for_than_there_are_is_refused(tmp_path):
    partition = {"by": "key", "column": "category"}
    with pytest.raises(InputError, match=r"federation\.cohort: 30 .* 8 clients"):
        Run(tiny(tmp_path, partition=partition, federation={"cohort": 30}, data={"limit": None}))


def test_too_few_replies_stop_the_run_and_keep_it_resumable(tmp_path):
    plan = tiny(tmp_path / "run", federation={"dropout": 0.9, "minimum": 1.0, "cohort": 4})
    with pytest.raises(TooFewReplies, match=r"round 1: .* of 4 clients replied"):
        finish(plan)
    assert [record["round"] for record in journal(tmp_path / "run")] == [0]


def test_a_round_is_repeated_with_another_cohort_when_the_plan_allows_it(tmp_path):
    federation = {"dropout": 0.5, "minimum": 1.0, "cohort": 2, "attempts": 50}
    plan = tiny(tmp_path / "run", federation=federation)
    finish(plan)
    records = journal(tmp_path / "run")[1:]
    assert sum(record["attempt"] for record in records) > 0
    assert all(len(record["clients"]) == 2 for record in records)
    failed = [failure for record in records for failure in record["failures"]]
    assert {failure["reason"] for failure in failed} == {"dropout"}


def test_clients_own_validation_rows_are_scored_and_never_trained_on(tmp_path):
    plan = tiny(
        tmp_path / "run", partition={"clients": 4, "validation": 0.2}, evaluation={"clients": True}
    )
    with Run(plan) as opened:
        sizes = {client.id: client.examples for client in opened.job.engine.clients()}
        held = opened.job.validation
        assert sum(sizes.values()) + len(held.rows) == 72
        for finished in opened.rounds():
            scored = finished.record["evaluation"]["clients"]
            assert set(scored) == set(sizes) == set(held.groups)


@pytest.mark.parametrize("damage", ["truncate", "flip", "foreign", "unsealed"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage, done, tmp_path):
    plan = tiny(tmp_path / "run")
    for finished in run(plan):
        if finished.round == 2:
            break
    newest = tmp_path / "run" / "checkpoints" / "000002.safetensors"
    block = newest.read_bytes()
    if damage == "truncate":
        newest.write_bytes(block[: len(block) // 2])
    elif damage == "flip":
        newest.write_bytes(block[:-1] + bytes([block[-1] ^ 1]))
    elif damage == "foreign":
        for suffix in (".safetensors", ".json"):
            theirs = done[0] / "checkpoints" / f"000002{suffix}"
            newest.with_suffix(suffix).write_bytes(theirs.read_bytes())
    else:
        newest.with_suffix(".json").unlink()
    with Run(plan, resume=True) as opened:
        assert opened.state.round == 1
        assert damage == "unsealed" or "passed over" in opened.notes[-1]
        for _ in opened.rounds():
            pass
    assert adapter_bytes(tmp_path / "run") == done[1]


def test_a_journal_survives_any_letters_and_a_cut_in_the_middle_of_one(tmp_path):
    rows = [
        {"instruction": f"q {i}", "response": f"a {i}", "category": "数\u2028b\x85"}
        for i in range(40)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = tiny(tmp_path / "run", data={"train": str(file)})
    for finished in run(plan):
        if finished.round == 2:
            break
    path = tmp_path / "run" / "journal.jsonl"
    path.write_bytes(path.read_bytes() + '{"round": 3, "x": "数'.encode()[:-1])
    finish(plan, resume=True)
    records = journal(tmp_path / "run")
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    assert list(records[0]["evaluation"]["by"]) == ["数\u2028b\x85"]


def stopped(folder: Path, **changes):
    plan = tiny(folder, local={"keep_optimizer": True}, federation={"cohort": 4}, **changes)
    for finished in run(plan):
        if finished.round == 2:
            break
    return plan


@pytest.mark.parametrize("damage", ["checkpoints", "environment", "homes", "home", "plan"])
def test_what_resuming_needs_is_refused_when_lost_and_nothing_is_erased(damage, tmp_path):
    folder = tmp_path / "run"
    plan = stopped(folder)
    before = (folder / "journal.jsonl").read_bytes()
    if damage == "checkpoints":
        shutil.rmtree(folder / "checkpoints")
    elif damage == "environment":
        (folder / "environment.json").write_text('{"run": ')
    elif damage == "homes":
        shutil.rmtree(folder / "homes")
    elif damage == "home":
        home = max((folder / "homes" / "client-01").iterdir())
        home.write_bytes(home.read_bytes()[:-1] + b"?")
    else:
        text = (folder / "plan.yaml").read_text()
        (folder / "plan.yaml").write_text(text.replace("seed: 0", "seed: 9"))
        plan = fedit.load_plan(folder / "plan.yaml")
    said = {"checkpoints": "no checkpoint", "plan": "seed: 0 → 9"}.get(damage, "missing or damaged")
    with pytest.raises(InputError, match=said):
        Run(plan, resume=True)
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_stray_file_among_the_homes_does_not_matter(tmp_path):
    folder = tmp_path / "run"
    plan = stopped(folder)
    (folder / "homes" / "client-01" / "copy of 2.home").write_text("mine")
    assert finish(plan, resume=True)


def test_scoring_refuses_other_rows_and_another_base_than_the_runs(tmp_path):
    from fedit.score import score

    rows = [{"instruction": f"q {i}", "response": f"a {i}"} for i in range(60)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finish(tiny(tmp_path / "run", data={"train": str(file)}, evaluation={"max_new_tokens": 2}))
    score(tmp_path / "run")
    file.write_text(file.read_text() + json.dumps({"instruction": "new", "response": "row"}) + "\n")
    with pytest.raises(InputError, match="has changed since the run"):
        score(tmp_path / "run")
    assert score(tmp_path / "run", str(file), limit=4)["rows"] == 4
    known = json.loads((tmp_path / "run" / "environment.json").read_text())
    known["base"] = "0" * 64
    (tmp_path / "run" / "environment.json").write_text(json.dumps(known))
    with pytest.raises(InputError, match="is not the base"):
        score(tmp_path / "run", str(file), limit=4)


def test_rows_and_clients_left_out_are_noted(tmp_path):
    rows = [{"prompt": f"q {i}", "completion": f"a {i}", "site": f"s{i // 9}"} for i in range(31)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": str(file), "holdout": None}
    partition = {"by": "key", "column": "site", "minimum": 5, "small": "drop"}
    with Run(tiny(tmp_path / "run", data=data, partition=partition)) as opened:
        assert any("1 clients below the minimum left out: s3" in note for note in opened.notes)


def test_a_column_to_group_by_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"evaluation\.by: .*'categori'.*did you mean 'category'"):
        Run(tiny(tmp_path / "run", evaluation={"by": "categori"}))


def test_validation_shares_are_exact_and_leave_a_row_to_train_on(tmp_path):
    data = {"holdout": None, "limit": 100}
    with Run(
        tiny(
            tmp_path / "run",
            data=data,
            partition={"clients": 1, "validation": 0.29},
            federation={"cohort": 1},
        )
    ) as opened:
        assert len(opened.job.validation.rows) == 29
    with Run(
        tiny(
            tmp_path / "few", data={**data, "limit": 8}, partition={"clients": 4, "validation": 0.9}
        )
    ) as opened:
        assert [client.examples for client in opened.job.engine.clients()] == [1, 1, 1, 1]


def test_everything_in_the_result_can_be_read_by_others(done):
    for file in (done[0] / "adapter").iterdir():
        assert file.stat().st_mode & 0o044 == 0o044, file.name


def test_a_template_is_refused_before_the_model_is_loaded(tmp_path):
    template = {"name": "own", "prompt": "{instr}"}
    model = {"config": None, "base": str(tmp_path / "no model here")}
    with pytest.raises(InputError, match=r"template\.prompt: unknown field \{instr\}"):
        Run(tiny(tmp_path / "run", template=template, model=model))


def test_a_method_handed_over_is_not_taken_for_the_plans_of_the_same_name(tmp_path):
    own = replace(fedavg(), server=Momentum())
    plan = tiny(
        tmp_path / "run", federation={"rounds": 2}, partition={"clients": 4, "validation": 0.2}
    )
    begun = run(plan, algorithm=own)
    next(begun)
    begun.close()
    with pytest.raises(InputError, match="algorithm has changed since the run began"):
        finish(plan, resume=True)
    with pytest.raises(InputError, match=r"algorithm fedavg .* is not in its plan"):
        personal(tmp_path / "run")
    assert [done.round for done in run(plan, resume=True, algorithm=own)] == [1, 2]


def test_every_clusters_adapter_is_delivered_and_who_chose_it(tmp_path):
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    algorithm = {"name": "ifca", "clusters": 3, "spread": 0.5}
    plan = tiny(tmp_path / "run", algorithm=algorithm, federation={"rounds": 1})
    with Run(plan) as opened:
        for _ in opened.rounds():
            pass
        public, note = opened.state.public, opened.notes[-1]
    chose = [metrics["cluster"] for metrics in journal(tmp_path / "run")[-1]["clients"].values()]
    for k, role in enumerate(("adapter", "cluster.1", "cluster.2")):
        folder = tmp_path / "run" / (f"adapter-cluster-{k}" if k else "adapter")
        found = load_file(folder / "adapter_model.safetensors")
        assert same(found, {name: public[role][name] for name in found})
        assert len(found) == len(public[role])
        assert f"{chose.count(k)} {folder.name}/" in note
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "base")
        theirs = PeftModel.from_pretrained(base, str(folder)).state_dict()
        name = min(found)
        assert torch.equal(theirs[name.replace(".weight", ".default.weight")], found[name])
