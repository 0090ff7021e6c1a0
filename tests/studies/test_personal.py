"""Clients' own models in a study: clients count once, and what is left is done on resume."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedit.cli import app
from fedit.core.errors import InputError
from fedit.recipe import dump_plan, load_study
from fedit.report.studies import read_study
from fedit.studies.study import OpenStudy
from tests.studies.small import small, tree

ARMS = {"fedavg": {}, "fedper": {"algorithm": {"name": "fedper", "personal": ["lora_B"]}}}


def asked(folder: Path, validation: float = 0.25, **changes) -> Path:
    """A study of two methods over two seeds, own models as they are and after one step."""
    file = folder / "small.yaml"
    plan = {
        **tree(folder)["plan"],
        "partition": {"by": "iid", "clients": 4, "validation": validation},
        "federation": {"rounds": 2, "cohort": 4},
    }
    options = {
        "arms": ARMS,
        "personal": {"limit": 3, "tune": [0, 1]},
        "seeds": [0, 1],
        "workers": 1,
        **changes,
    }
    file.write_text(dump_plan(small(folder, plan=plan, **options)))
    return file


def run(file: Path, *words: str):
    return CliRunner().invoke(app, ["study", str(file), *words], catch_exceptions=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("personal")
    shown = run(asked(folder))
    assert shown.exit_code == 0, shown.output
    return folder / "study", shown.output


def parts(folder: Path) -> dict[tuple[str, int], dict]:
    summary = json.loads((folder / "summary.json").read_text())
    return {(part["arm"], part["tune"]): part for part in summary["personal"]}


def told(folder: Path, arm: str, name: str) -> list[dict]:
    """What both seeds' files say of every client."""
    found = [json.loads((folder / f"seed-{s}" / arm / name).read_text()) for s in (0, 1)]
    return [client for one in found for client in one["clients"].values()]


def test_each_client_counts_once_over_all_seeds(done):
    found = parts(done[0])
    assert set(found) == {(arm, tune) for arm in ARMS for tune in (0, 1)}
    for (arm, tune), part in found.items():
        clients = told(done[0], arm, "personal-1.json" if tune else "personal.json")
        assert part["own_rows"]["clients"] == len(clients) == 8
        for rows in ("own_rows", "test_rows"):
            for model in ("own_model", "global_model"):
                scores = [client[rows][model]["token_f1"] for client in clients]
                found_f1 = part[rows][model]["f1"]
                assert found_f1["mean"] == pytest.approx(sum(scores) / 8)
                assert found_f1["low"] <= found_f1["mean"] <= found_f1["high"]
                assert part[rows][model]["fairness"]["token_f1"]["worst"] == min(scores)
            own, usual = part[rows]["own_model"], found["fedavg", 0][rows]["global_model"]
            gain = own["f1"]["mean"] - usual["f1"]["mean"]
            assert part[rows]["gain"]["f1"]["mean"] == pytest.approx(gain)


def test_a_rate_is_chosen_by_what_clients_themselves_get(tmp_path, monkeypatch):
    """FedPer's global model is none: the rates' places follow the own models' scores."""
    dev = tmp_path / "dev.jsonl"
    rows = [{"instruction": f"what is {n}?", "response": f"it is {n}"} for n in range(6)]
    dev.write_text("\n".join(map(json.dumps, rows)))
    file = asked(
        tmp_path,
        dev={"data.test": str(dev)},
        tune={"local.lr": [1e-3, 3e-2]},
        tune_seeds=[5],
    )
    shown = run(file, "--tune")
    assert shown.exit_code == 0, shown.output
    assert "own F1 %" in shown.output
    found = json.loads((tmp_path / "study" / "tune" / "tune.json").read_text())["arms"]
    assert [part["arm"] for part in found] == list(ARMS)
    for part in found:
        scored = {}
        for one in part["candidates"]:
            rate = one["changes"]["local.lr"]
            [place] = (tmp_path / "study" / "tune").glob(f"*={rate}/seed-5/{part['arm']}/personal*")
            assert place.name == "personal.json", "not what more steps make of them"
            clients = json.loads(place.read_text())["clients"].values()
            own = [
                [client["own_rows"]["own_model"][key] for client in clients]
                for key in ("exact_match", "token_f1", "loss")
            ]
            em, f1, loss = (sum(values) / len(values) for values in own)
            told = [one["own"][measure]["mean"] for measure in ("em", "f1", "loss")]
            assert told == pytest.approx([em, f1, loss])
            scored[rate] = (em, f1, -loss)
        assert part["best"]["local.lr"] == max(scored, key=scored.get)


def test_a_method_without_own_models_gains_nothing_until_they_are_tuned(done):
    found = parts(done[0])
    nothing = {"mean": 0.0, "low": 0.0, "high": 0.0}
    gains = found["fedavg", 0]["own_rows"]["gain"]
    assert gains == {"em": nothing, "f1": nothing, "loss": nothing}
    assert all(client["is_global"] for client in told(done[0], "fedavg", "personal.json"))
    assert not any(client["is_global"] for client in told(done[0], "fedavg", "personal-1.json"))
    assert not any(client["is_global"] for client in told(done[0], "fedper", "personal.json"))


def test_terminal_and_page_show_them(done):
    folder, output = done
    for rows in ("own", "test"):
        for measure in ("EM %", "loss"):
            assert f"{measure}, 8 clients' models, {rows} rows, 95 % intervals" in output
    assert output.count("less fedavg's") == 4
    assert "fedper +1 step " in output
    words = CliRunner().invoke(app, ["report", str(folder)], catch_exceptions=False)
    assert words.exit_code == 0, words.output
    page = (folder / "report.html").read_text()
    assert "own models, each client counting once" in page
    assert "tuned for 1 step<" in page
    assert len(read_study(folder).summary.personal) == 4


def test_a_run_whose_clients_were_not_scored_is_not_done(done):
    folder, _ = done
    before, lost = parts(folder), folder / "seed-1" / "fedper" / "personal-1.json"
    lost.unlink()
    with OpenStudy(load_study(folder / "study.yaml"), resume=True) as opened:
        assert [str(job.place) for job in opened.left] == ["seed-1/fedper"]
        list(opened.done())
        opened.summarise()
    assert lost.exists()
    assert parts(folder) == before


def test_a_damaged_file_is_named(done):
    folder, _ = done
    path = folder / "seed-0" / "fedavg" / "personal.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    try:
        with (
            OpenStudy(load_study(folder / "study.yaml"), resume=True) as opened,
            pytest.raises(InputError, match=r"personal\.json: damaged .* delete it, then resume"),
        ):
            opened.summarise()
    finally:
        path.write_bytes(whole)


def test_rows_to_score_them_on_are_needed(tmp_path):
    file = asked(tmp_path, validation=0.0)
    with pytest.raises(InputError, match=r"personal: plan\.partition\.validation is 0"):
        run(file)


def test_all_rows_together_would_have_fewer(tmp_path):
    file = asked(tmp_path, arms={**ARMS, "central": {}})
    with pytest.raises(InputError, match=r"validation 0\.25: .* or the arm central"):
        run(file)


def test_a_number_of_steps_stands_once(tmp_path):
    with pytest.raises(InputError, match=r"personal\.tune: .* stands there twice"):
        asked(tmp_path, personal={"tune": [3, 3]})
