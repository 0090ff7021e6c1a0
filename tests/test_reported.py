import json
import shutil

import pytest
from typer.testing import CliRunner

from fedit.cli import app
from fedit.core.errors import InputError
from fedit.report.studies import read_study
from fedit.reported import report
from tests.report import made


@pytest.fixture
def run(tmp_path):
    return made.run(tmp_path / "one", items=made.answers(16, 0.5))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return made.study(tmp_path_factory.mktemp("study") / "made")


def text(path):
    return path.read_text(encoding="utf-8")


def test_the_command_writes_into_the_folder_and_says_where(run):
    result = CliRunner().invoke(app, ["report", str(run)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout == f"{run / 'report.html'}\n"
    assert "After 3 rounds the held-out loss is 2.15 nats a token" in text(run / "report.html")


def test_open_shows_the_page_in_the_browser(run, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    CliRunner().invoke(app, ["report", str(run), "--open"], catch_exceptions=False)
    assert shown == [(run / "report.html").as_uri()]


def test_several_runs_are_set_side_by_side(run, tmp_path, monkeypatch):
    other = made.run(tmp_path / "two", level=2.5, local={"lr": 0.002})
    monkeypatch.chdir(tmp_path)
    page = text(report([run, other]))
    assert "one ends with the lowest held-out loss" in page
    assert "local.lr" in page
    assert f"answers of two are missing: fedit evaluate {other}" in page
    assert (tmp_path / "report.html").exists()


def test_runs_of_equal_names_are_told_apart(run, tmp_path):
    other = made.run(tmp_path / "deeper" / "one", level=3.0)
    page = text(report([run, other], tmp_path / "page.html"))
    assert f"{run} ends with" in page


def test_an_unfinished_and_damaged_run_is_told_as_far_as_it_goes(run):
    (run / "environment.json").write_text("{")
    (run / "scores.json").write_text('{"items": [{"where": 3}]}')
    lines = (run / "journal.jsonl").read_text().splitlines()
    (run / "journal.jsonl").write_text("\n".join([*lines[:2], lines[2][:40], '{"round": "x"}']))
    page = text(report([run]))
    for said in (
        "2 damaged lines of journal.jsonl left out",
        "1 of 3 rounds are shown (go on with: fedit run --resume",
        "environment.json is missing or damaged",
        "scores.json is left out",
        "After 1 round the held-out loss",
        "missing: fedit evaluate",
    ):
        assert said in page
    assert 'id="holdings"' not in page
    assert 'id="answers"' not in page


def test_names_of_folders_are_shown_as_text(tmp_path):
    folder = made.run(tmp_path / "plain").rename(tmp_path / "<b>\x1b[31m\u202e\udcff")
    (folder / "journal.jsonl").write_text("")
    page = text(report([folder], tmp_path / "page.html"))
    assert "&lt;b&gt;⟨U+001B⟩[31m⟨U+202E⟩⟨U+DCFF⟩" in page
    assert not any(sign in page for sign in ("<b>\x1b", "\x1b", "\u202e"))


def test_a_run_without_any_round_is_no_crash(run):
    for name in ("journal.jsonl", "scores.json"):
        (run / name).unlink()
    page = text(report([run]))
    assert "no held-out loss was measured" in page
    assert 'id="course"' not in page


def test_a_damaged_plan_leaves_out_what_needs_it(run):
    (run / "plan.yaml").write_text("model: [")
    page = text(report([run]))
    assert "plan.yaml is damaged" in page
    assert "only the clients&#39; sizes are shown" in page


def test_data_that_has_changed_leaves_the_clients_sizes(run):
    path = run / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": {"microworld": "other"}}))
    page = text(report([run]))
    assert "Only the clients&#39; sizes are shown" in page
    assert "from 18 to 18 each" in page


def test_what_cannot_be_reported_is_refused(run, study, tmp_path):
    with pytest.raises(InputError, match="no such folder; give the --output of a run"):
        report([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="holds no run"):
        report([tmp_path])
    with pytest.raises(InputError, match="is a study; give it alone"):
        report([run, study])
    with pytest.raises(InputError, match="no folder given"):
        report([])


def test_a_study_needs_its_summary(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "copy")
    (copy / "summary.json").write_text('{"name": "x", "arms": [{"name": 3}]}')
    with pytest.raises(InputError, match=r"damaged \(arms\.0\.name: .*fedit study .* --resume"):
        report([copy])
    (copy / "summary.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        report([copy])
    (copy / "summary.json").unlink()
    with pytest.raises(InputError, match=r"has no summary\.json, so it has not finished"):
        report([copy])


def test_a_study_without_its_runs_shows_its_summary(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "copy")
    for folder in ("seed-0", "seed-1", "base"):
        shutil.rmtree(copy / folder)
    page = text(report([copy]))
    assert "no run of fedit lies in" in page
    assert 'id="results"' in page
    assert 'id="course"' not in page
    assert 'id="answers"' not in page


def test_a_study_finds_every_run(study):
    found = read_study(study)
    assert {arm: len(runs) for arm, runs in found.runs.items()} == {
        "local": 4,
        "fedit": 2,
        "fedprox": 2,
        "central": 2,
    }
    assert found.notes == []
    assert found.base is not None


def test_only_a_page_of_ours_is_overwritten(run, tmp_path):
    foreign = tmp_path / "index.html"
    foreign.write_text("<h1>mine</h1>")
    with pytest.raises(InputError, match="exists and is no report of fedit"):
        report([run], foreign)
    assert text(foreign) == "<h1>mine</h1>"
    ours = report([run], tmp_path / "deep" / "page.html")
    assert report([run], ours) == ours


def test_a_page_that_cannot_be_written_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        report([run], tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        report([run], run / "plan.yaml" / "page.html")
