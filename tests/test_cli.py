"""The command line's contract: what goes where, and with which exit code."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedit.cli import app, main
from fedit.core.errors import InputError
from fedit.recipe import dump_plan
from tests.tiny import finish, journal, tiny

FEDIT = [sys.executable, "-m", "fedit.cli"]


def invoke(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_plan(tiny(tmp_path / "run", name="recipe", federation={"rounds": 2})))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("done") / "run"
    finish(tiny(folder))
    return folder


def test_what_is_known_only_at_the_end_is_noted_at_the_end(recipe, tmp_path):
    result = invoke("run", recipe, "algorithm=fedex_lora", "--output", tmp_path / "other")
    assert result.exit_code == 0
    said = json.loads((tmp_path / "other" / "adapter" / "fedit.json").read_text())
    note, done = result.stderr.splitlines()[-2:]
    assert note.startswith(f"note: adapter/ has rank {said['rank']}: ")
    assert done.startswith("done: ")


def test_json_is_the_journal_and_nothing_else_on_standard_output(recipe, tmp_path):
    result = invoke("run", recipe, "--json")
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == journal(tmp_path / "run")


def test_quiet_says_nothing(recipe):
    result = invoke("run", recipe, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_lines_tell_losses_clients_speed_and_bytes(recipe):
    said = invoke("run", recipe).stderr
    assert "4 clients" in said
    last = next(line for line in said.splitlines() if line.startswith("round 2/2"))
    for word in ("held-out loss", "train loss", "2 of 2 clients", "tok/s", "↑", "↓"):
        assert word in last
    assert "run/adapter" in said.replace("\n", "")


def test_a_dry_run_prints_the_plan_and_makes_nothing(recipe, tmp_path):
    result = invoke("run", recipe, "federation.rounds=7", "--dry-run", "--output", tmp_path / "x")
    assert result.exit_code == 0
    assert "# 2 of 4 clients a round, at least 1 must reply" in result.stdout
    copy = tmp_path / "copy.yaml"
    copy.write_text(result.stdout)
    assert "rounds: 7" in invoke("run", copy, "--dry-run").stdout
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "copy.yaml"}


@pytest.mark.parametrize("key", ["train", "test"])
@pytest.mark.parametrize("fault", ["missing", "unreadable"])
def test_a_dry_run_refuses_data_that_cannot_be_read(key, fault, recipe, tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    words = ["run", recipe, f"data.{key}={file}", "data.holdout=null", "--dry-run"]
    if fault == "missing":
        with pytest.raises(InputError, match="no such file or folder"):
            invoke(*words)
    file.write_text('{"instruction": "q", "response": "a"}\n')
    assert invoke(*words).exit_code == 0
    if fault == "unreadable":
        usual = Path.open

        def denied(path, *given, **named):
            if path == file:
                raise PermissionError(13, "Permission denied")
            return usual(path, *given, **named)

        monkeypatch.setattr(Path, "open", denied)  # root may read everything
        with pytest.raises(InputError, match=r"rows\.jsonl.*Permission denied; check its perm"):
            invoke(*words)


def test_a_run_folder_resumes_by_its_name_alone(recipe, tmp_path):
    invoke("run", recipe, "federation.rounds=1")
    result = invoke("run", "--resume", tmp_path / "run", "federation.rounds=2")
    assert result.exit_code == 0
    assert "resuming after round 1" in result.stderr
    assert [record["round"] for record in journal(tmp_path / "run")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "RECIPE", "federation.cohorts=2"], "did you mean 'cohort'?"),
        (["run", "RECIPE", "local.lr=-1"], "local.lr"),
        (["run", "RECIPE", "data.train=missing.jsonl"], "missing.jsonl"),
        (["run", "FOLDER"], "--resume"),
        (["evaluate", "FOLDER"], "plan.yaml"),
        (["export", "FOLDER", "FOLDER/new"], "plan.yaml"),
        (["partition", "RECIPE", "--by", "nothing"], "nothing"),
        (["partition", "RECIPE", "--figure", "picture.bmp"], ".png"),
        (["run"], "RECIPE"),
        (["fly"], "fly"),
    ],
)
def test_a_users_mistake_ends_in_a_message_and_exit_code_2(
    words, said, recipe, tmp_path, monkeypatch, capfd
):
    places = {"RECIPE": str(recipe), "FOLDER": str(tmp_path), "FOLDER/new": str(tmp_path / "new")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedit", *(places.get(word, word) for word in words)])
    ending = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, ending)
    stdout, stderr = capfd.readouterr()
    assert ended.value.code == 2
    assert said in stderr
    assert stdout == ""


def test_of_a_mistake_a_process_shows_no_traceback(tmp_path):
    command = [*FEDIT, "run", "missing.yaml"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: recipe missing.yaml")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_evaluate_agrees_with_the_journal_and_counts_every_row(done, tmp_path):
    answers = tmp_path / "answers.jsonl"
    result = invoke("evaluate", done, "--json", "--predictions", answers)
    scored = json.loads(result.stdout)
    assert scored["loss"] == pytest.approx(journal(done)[-1]["evaluation"]["loss"])
    assert scored["rows"] == sum(part["rows"] for part in scored["by"].values()) == 8
    assert 0 <= scored["exact_match"] <= scored["token_f1"] <= 1
    losses = [part["loss"] for part in scored["by"].values()]
    even = scored["fairness"]["by"]["loss"]
    assert even["gap"] == pytest.approx(max(losses) - min(losses))
    assert even["worst"] == max(losses), "a tenth of fewer than eleven is one"
    written = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(written) == 8
    assert set(written[0]) == {"where", "question", "context", "answer", "reference"}


def test_evaluate_says_how_even_groups_and_languages_are(done, tmp_path):
    rows = [
        {"prompt": f"q {n}", "completion": "a", "category": f"c{n % 3}", "language": "en"}
        for n in range(6)
    ]
    rows[4]["language"] = rows[5]["language"] = "es"
    del rows[0]["language"]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = json.loads(invoke("evaluate", done, "--data", file, "--json").stdout)
    assert scored["fairness"]["by"]["token_f1"]["count"] == 3
    assert scored["fairness"]["language"]["token_f1"]["count"] == 2, "a row without counts nowhere"
    shown = invoke("evaluate", done, "--data", file).stdout
    assert "EM over 3 groups" in shown
    assert "F1 over 2 languages" in shown
    for row in rows:
        row.update(category="one", language="en")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "how even" not in invoke("evaluate", done, "--data", file).stdout


def test_evaluate_takes_any_data_of_a_known_shape(done, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer,category\nWhat is 1 + 1?,2,sums\nWhat is 1 + 1?,2,sums\n")
    result = invoke("evaluate", done, "--data", rows)
    assert "sums" in result.stdout
    assert "dropped 1 repeated rows" in result.stderr


def test_partition_tells_and_draws_the_same_division(recipe, tmp_path):
    words = ["partition={by: shards, clients: 5, shards: 2}", "data.limit=null"]
    picture = tmp_path / "picture.svg"
    found = json.loads(invoke("partition", recipe, *words, "--json", "--figure", picture).stdout)
    assert found["column"] == "category"
    assert sum(client["rows"] for client in found["clients"].values()) == found["rows"]
    for client in found["clients"].values():
        assert sum(client["labels"].values()) == client["rows"]
    assert 0 < found["skew"]["mean"]["jensen_shannon"] <= 1
    assert picture.read_text().startswith("<?xml")
    lines = invoke("partition", recipe, *words).stdout.splitlines()
    assert len(lines) == 6
    assert lines[-1].startswith("over category: Jensen-Shannon")


def test_labels_that_look_like_markup_or_commands_are_shown_as_text(done, tmp_path):
    rows = [
        {"prompt": "q", "completion": "a", "category": "[/x]"},
        {"prompt": "r", "completion": "b", "category": "\x1b[31mred\x07"},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = invoke("evaluate", done, "--data", file).stdout
    assert "[/x]" in shown
    assert "\x1b[31m" not in shown
    assert "\x07" not in shown
