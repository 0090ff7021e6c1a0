"""Tables on a terminal of eighty columns, and what own models are set against."""

import io
import json
from pathlib import PurePath

import pytest
from rich.console import Console

from fedit.config import Personal
from fedit.studies.jobs import Job
from fedit.studies.personal import personal_part
from fedit.studies.table import label_tables, personal_tables
from fedit.studies.tuned import tuned_tables
from tests.studies.small import small
from tests.tiny import tiny

SCORE = {"mean": 0.621, "low": 0.571, "high": 0.671}
LOSS = {"mean": 12.345, "low": 12.295, "high": 12.395}
SCORES = {"em": SCORE, "f1": SCORE, "loss": LOSS}


def shown(tables) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue().splitlines()


def test_labels_of_one_letter_leave_no_more_room_than_there_is():
    arms = [
        {"name": name, "metrics": {f"by/{label}": SCORES for label in "ab"}}
        for name in ("central", *(f"arm-{n}" for n in range(12)))
    ]
    lines = shown(label_tables({"arms": arms}))
    heads = [line.split() for line in lines if "central" in line or "arm-" in line]
    assert [name for head in heads for name in head] == [arm["name"] for arm in arms]
    assert sum(line.startswith(" a ") for line in lines) == len(heads) > 1


def test_intervals_stay_whole_where_own_models_are_tuned_too(tmp_path):
    changes = [{"local.lr": 1e-3, "local.steps": 100}, {"local.lr": 2e-3, "local.steps": 100}]
    candidates = [{"changes": one, **SCORES, "own": SCORES} for one in changes]
    study = small(tmp_path, arms={"a-long-name": {"kind": "federated"}})
    part = {"arm": "a-long-name", "candidates": candidates, "best": changes[1], "edge": []}
    lines = shown(tuned_tables(study, {"items": 300, "arms": [part]}))
    assert sum(line.count("62.1 (57.1–67.1)") for line in lines) == 8
    assert sum("12.295–12.395)" in line for line in lines) == 4
    assert any("own EM %" in line for line in lines)


def kept(folder, arm: str, losses, **changes) -> Job:
    """A run of that arm in which each client's own and the global model have this loss, if any."""
    plan = tiny(folder, **changes)
    plan = plan.model_copy(update={"output": str(folder / arm)})
    (folder / arm).mkdir()
    clients = {}
    for n, loss in enumerate(losses):
        score = {"exact_match": 0.5, "token_f1": 0.5, "loss": loss, "rows": 4}
        pair = {"own_model": score, "global_model": score}
        clients[f"client-{n}"] = {"own_rows": pair, "test_rows": pair}
    (folder / arm / "personal.json").write_text(json.dumps({"clients": clients}))
    return Job(PurePath(arm), arm, "federated", plan, 1, 0, personal=Personal())


@pytest.mark.parametrize(("by", "there"), [("iid", True), ("sizes", False)])
def test_a_gain_is_over_clients_that_have_the_same_rows(tmp_path, by, there):
    """As many rows are not the same ones: dealt in another way nothing is set against each other."""
    other = {"by": by, "clients": 2} | ({"alpha": 1.0} if by == "sizes" else {})
    jobs = [
        kept(tmp_path, "first", [1.0, 2.0], partition={"by": "iid", "clients": 2}),
        kept(tmp_path, "other", [0.5, 2.0], partition=other),
    ]
    first, second = personal_part(jobs, Personal(tune=[0]))
    assert first["own_rows"]["gain"]["loss"]["mean"] == 0
    assert second["own_rows"]["own_model"]["loss"]["mean"] == 1.25
    gain = second["own_rows"]["gain"]
    assert (gain["loss"]["mean"] if there else gain) == (-0.25 if there else {})
    assert any(" – " in line for line in shown(personal_tables({"personal": [second]}))) != there


def test_losses_that_are_no_numbers_are_shown_as_such(tmp_path):
    jobs = [kept(tmp_path, "first", [1.0, None]), kept(tmp_path, "other", [None, None])]
    parts = personal_part(jobs, Personal(tune=[0]))
    assert parts[1]["own_rows"]["gain"]["loss"] == {"mean": None, "low": None, "high": None}
    lines = shown(personal_tables({"personal": parts}))
    assert sum("not finite" in line for line in lines) == 4
