"""A whole study through two workers: its folder, its summary, and that neither workers nor deaths matter."""

import glob
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedit import InputError, load_study, study
from fedit.cli import app
from fedit.core.errors import FeditError
from fedit.recipe import dump_plan
from fedit.studies import tuning
from fedit.studies.study import OpenStudy
from tests.studies.small import bytes_of, small, tree


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def done(rows) -> Path:
    """A finished study, run with two workers."""
    list(study(small(rows)))
    return rows / "study"


@pytest.fixture(scope="module")
def summary(done) -> dict:
    return json.loads((done / "summary.json").read_text())


def invoke(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_the_folder_holds_a_run_for_every_arm_and_client(done):
    runs = {str(path.parent.relative_to(done)) for path in done.rglob("scores.json")}
    assert len(runs) == 5
    assert len([run for run in runs if "local/client-" in run]) == 2
    assert {"base", "seed-0/fedit", "seed-0/central"} <= runs
    for run in runs - {"base"}:
        assert (done / run / "adapter" / "adapter_model.safetensors").exists()


def test_the_summary_says_what_was_promised(summary):
    assert {"name", "seeds", "items", "date", "machine", "seconds"} <= set(summary)
    assert (summary["seeds"], summary["items"]) == ([0], 8)
    assert [(arm["name"], arm["kind"], arm["runs"]) for arm in summary["arms"]] == [
        ("base", "base", 1),
        ("local", "local", 2),
        ("fedit", "federated", 1),
        ("central", "central", 1),
    ]
    assert [arm["lr"] for arm in summary["arms"]] == [None, 5e-3, 1e-2, 5e-3]
    groups = {"all", *(f"category/c{i}" for i in range(4)), "language/en", "language/es"}
    for arm in summary["arms"]:
        assert set(arm["metrics"]) == groups
        for scores in arm["metrics"].values():
            assert set(scores) == {"em", "f1", "loss"}
            for estimate in scores.values():
                assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    assert set(summary["spread"]) == {"local"}
    assert set(summary["spread"]["local"]["em"]) == {"best", "worst"}
    pairs = {(one["arm"], one["over"]) for one in summary["differences"]}
    assert pairs == {(one["arm"], one["over"]) for one in summary["ratios"]}
    assert {("fedit", "local"), ("fedit", "central"), ("local", "base")} <= pairs
    assert len(summary["clients"]) == 2
    for client in summary["clients"]:
        assert set(client["arms"]) == {"base", "local", "fedit", "central"}
        assert client["rows"] == 16
        assert set(client["own"]) <= {"c0", "c1", "c2", "c3"}
    assert len(summary["cost"]) == 5
    assert all(cost["tokens"] > 0 for cost in summary["cost"] if cost["arm"] != "base")


def test_every_arm_sees_the_same_samples(summary):
    samples = [arm["samples"] for arm in summary["arms"]]
    assert samples == [0, 3 * 2 * 2 * 4, 3 * 2 * 2 * 4, 3 * 2 * 2 * 4]


def test_the_losses_are_those_of_the_journals_and_the_base_is_every_runs_round_0(done, summary):
    by_name = {arm["name"]: arm["metrics"]["all"]["loss"]["mean"] for arm in summary["arms"]}
    for arm in ("fedit", "central"):
        lines = (done / "seed-0" / arm / "journal.jsonl").read_text().splitlines()
        losses = [json.loads(line)["evaluation"]["loss"] for line in lines]
        assert by_name[arm] == pytest.approx(losses[-1], rel=1e-4)
        assert by_name["base"] == pytest.approx(losses[0], rel=1e-4)


def test_a_study_holds_only_ordinary_runs(done, tmp_path):
    """One of its runs, run alone from its plan on a base of its own, is the same to the byte."""
    for place in ("fedit", "central", next((done / "seed-0" / "local").iterdir())):
        folder = done / "seed-0" / place
        other = tmp_path / folder.name
        invoke("run", folder / "plan.yaml", "--output", other, "--quiet")
        name = "adapter/adapter_model.safetensors"
        assert (other / name).read_bytes() == (folder / name).read_bytes()
    scored = json.loads(invoke("evaluate", other, "--json").stdout)
    assert scored["rows"] == 8
    kept = json.loads((other / "scores.json").read_text())
    assert kept["items"] == json.loads((folder / "scores.json").read_text())["items"]


def test_one_worker_that_is_killed_twice_gives_the_same_bytes(done, tmp_path):
    """One worker or two, killed or not: adapters and answers are the same."""
    plan = small(tmp_path, workers=1, plan=_plan(done))
    lives: dict[str, int] = {}

    def began(job, pid):
        lives[str(job.place)] = lives.get(str(job.place), 0) + 1
        if job.arm == "fedit" and lives[str(job.place)] < 3:
            threading.Thread(target=_kill_in_training, args=(job, pid)).start()

    with OpenStudy(plan) as opened:
        assert len(list(opened.done(began))) == 5
        opened.summarise()
    assert lives["seed-0/fedit"] == 3
    assert bytes_of(tmp_path / "study") == bytes_of(done)


def test_a_job_that_kills_every_worker_ends_the_study_by_name(tmp_path):
    plan = small(tmp_path, workers=1, arms={"fedit": {}})

    def began(job, pid):
        os.kill(pid, signal.SIGKILL)

    with (
        OpenStudy(plan) as opened,
        pytest.raises(
            FeditError, match=r"seed-0/fedit: 3 workers died of it, the last with SIGKILL"
        ),
    ):
        list(opened.done(began))


def test_a_run_that_fails_is_named(tmp_path):
    plan = small(tmp_path, arms={"fedit": {"adapter.targets": ["nothing"]}})
    with pytest.raises(InputError, match=r"seed-0/fedit: adapter.targets: no linear layer"):
        list(study(plan))


def _kill_in_training(job, pid):
    journal = job.folder / "journal.jsonl"
    seen = journal.read_text().count("\n") if journal.exists() else 0
    while not journal.exists() or journal.read_text().count("\n") <= seen:
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)


def _plan(done: Path) -> dict:
    return load_study(done / "study.yaml").plan.model_dump()


def test_a_study_is_resumed_only_if_asked_and_only_as_it_was(done, rows):
    with pytest.raises(InputError, match="holds a study already; continue it with --resume"):
        OpenStudy(small(rows))
    changed = small(rows, arms={"fedit": {"local.lr": 1.0}, "base": {}})
    with pytest.raises(InputError, match=r"arms.fedit.local.lr: None → 1.0") as error:
        OpenStudy(changed, resume=True)
    assert "arms.central.kind: 'central' → None" in str(error.value)
    with pytest.raises(InputError, match=r"seeds: \[0\] taken away"):
        OpenStudy(small(rows, seeds=[1]), resume=True)
    assert (done / "summary.json").exists()


def test_seeds_and_arms_may_be_added(done, rows):
    arms = {**tree(rows)["arms"], "fedprox": {"algorithm": "fedprox"}}
    with OpenStudy(small(rows, arms=arms, seeds=[0, 1], workers=1), resume=True) as opened:
        left = [str(job.place) for job in opened.left]
    assert "seed-0/fedprox" in left
    assert "seed-1/fedit" in left
    assert not {"base", "seed-0/fedit", "seed-0/central"} & set(left)
    (done / "study.yaml").write_text(dump_plan(small(rows)))


def test_a_run_with_another_plan_or_other_data_is_refused(done, rows):
    path = done / "seed-0" / "fedit" / "plan.yaml"
    kept = path.read_text()
    path.write_text(kept.replace("rounds: 3", "rounds: 2"))
    with pytest.raises(InputError, match=r"was run with another plan \(federation.rounds: 2 → 3"):
        OpenStudy(small(rows), resume=True)
    path.write_text(kept)
    plan, file = small(rows), rows / "train.jsonl"
    kept = file.read_text()
    file.write_text(kept + '{"instruction": "q", "response": "a", "category": "c0"}\n')
    with pytest.raises(InputError, match="was run on other data than there is now"):
        OpenStudy(plan, resume=True)
    file.write_text(kept)


def test_the_tables_fit_eighty_columns(done, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = invoke("study", "--resume", done)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in result.stdout
    words = result.stdout
    for word in ("base", "local", "fedit", "central", "EM % by category", "EM % by language"):
        assert word in words
    assert "no difference shown" in words
    assert "one seed" in words
    told = json.loads(invoke("study", "--resume", done, "--json").stdout)
    assert told["arms"] == json.loads((done / "summary.json").read_text())["arms"]


FEDIT = [sys.executable, "-m", "fedit.cli"]


@pytest.mark.slow
def test_interrupted_killed_and_resumed_a_study_ends_with_the_same_bytes(done, tmp_path):
    file, folder = tmp_path / "small.yaml", tmp_path / "study"
    file.write_text(dump_plan(small(tmp_path, plan=_plan(done))))
    command = [*FEDIT, "study", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for(folder, 1, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"continue with: fedit study {folder} --resume" in said
    assert "Traceback" not in said
    assert "resource_tracker" not in said
    process = subprocess.Popen([*command, "--resume"], stderr=subprocess.DEVNULL)
    _wait_for(folder, 3, process)
    process.kill()
    process.wait()
    list(study(load_study(folder / "study.yaml"), resume=True))
    assert bytes_of(folder) == bytes_of(done)


def _wait_for(folder: Path, count: int, process: subprocess.Popen) -> None:
    while len(glob.glob(f"{folder}/**/scores.json", recursive=True)) < count:
        assert process.poll() is None
        time.sleep(0.01)


def test_the_best_value_goes_by_answers_or_by_loss(tmp_path, monkeypatch):
    """The first has more right answers and a higher loss than the second."""
    scores = iter(
        [
            {"em": {"mean": 0.2}, "f1": {"mean": 0.3}, "loss": {"mean": 2.0}},
            {"em": {"mean": 0.1}, "f1": {"mean": 0.4}, "loss": {"mean": 1.0}},
        ]
        * 2
    )
    monkeypatch.setattr(tuning, "_scores", lambda table, arm: next(scores))
    parts = [({"local.lr": rate}, None, {}) for rate in (1e-3, 1e-2)]
    for by, best in (("answers", 1e-3), ("loss", 1e-2)):
        asked = small(tmp_path, tune_by=by)
        assert tuning.tuned(asked, "fedit", parts)["best"] == {"local.lr": best}


def test_tuning_finds_the_best_value_and_warns_at_the_edge(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "small.yaml"
    arms = {"base": {}, "fedit": {}, "prox": {"algorithm": {"name": "fedprox", "mu": 0.1}}}
    file.write_text(dump_plan(small(tmp_path, arms=arms)))
    result = invoke("study", file, "--tune")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "study" / "tune" / "tune.json").read_text())
    assert [arm["arm"] for arm in found["arms"]] == ["fedit", "prox"]
    for arm in found["arms"]:
        tried = {one["changes"]["local.lr"]: one for one in arm["candidates"]}
        assert set(tried) == {1e-3, 1e-2}
        assert arm["edge"] == ["local.lr"]
        best = max(
            tried,
            key=lambda lr: (
                tried[lr]["em"]["mean"],
                tried[lr]["f1"]["mean"],
                -tried[lr]["loss"]["mean"],
            ),
        )
        assert arm["best"] == {"local.lr": best}
        assert f"{arm['arm']}: {{" in result.stdout
    assert "at the edge of the grid" in result.stdout.replace("\n", " ")
    assert "  prox: {algorithm: {name: fedprox, mu: 0.1}, local.lr: " in result.stdout.replace(
        "\n", ""
    )
    dev = (tmp_path / "dev.jsonl").read_text()
    place = next((tmp_path / "study" / "tune").rglob("seed-1000/fedit/scores.json"))
    assert all(item["reference"][:20] in dev for item in json.loads(place.read_text())["items"])
    assert not (tmp_path / "study" / "study.yaml").exists(), "the study itself is not begun"
    with pytest.raises(InputError, match="holds a tuning already"):
        invoke("study", file, "--tune")
    assert invoke("study", file, "--tune", "--resume", "--quiet").exit_code == 0


def test_tuning_on_the_tests_rows_is_refused(tmp_path):
    file = tmp_path / "small.yaml"
    test = str(tmp_path / "test.jsonl")
    file.write_text(dump_plan(small(tmp_path, dev={"data.test": test})))
    with pytest.raises(InputError, match="8 of the 8 rows to tune on are rows of the test"):
        invoke("study", file, "--tune")
    file.write_text(dump_plan(small(tmp_path, dev=None)))
    with pytest.raises(InputError, match="tuning needs dev"):
        invoke("study", file, "--tune")
    assert not (tmp_path / "study").exists()
