"""Each tracker really writes what a run logs, and a missing one names its extra."""

import sys
import time

import pytest

from fedit import InputError
from fedit.records import numbers_of
from fedit.report.trackers import open_tracker
from tests.tiny import finish, journal, tiny


def test_numbers_are_flat_and_leave_clients_out():
    record = {
        "round": 1,
        "loss": 2,
        "clients": {"a": {"loss": 9}},
        "evaluation": {"by": {"x": {"loss": 3}}},
    }
    assert numbers_of(record) == {"loss": 2.0, "evaluation/by/x/loss": 3.0}


def test_tensorboard_holds_every_rounds_held_out_loss(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finish(tiny(tmp_path / "run", trackers=["tensorboard"], federation={"rounds": 2}))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    written = {event.step: event.value for event in events.Scalars("evaluation/loss")}
    expected = {r["round"]: r["evaluation"]["loss"] for r in journal(tmp_path / "run")}
    assert written == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader")
def test_mlflow_holds_numbers_and_plan(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    tracker = open_tracker("mlflow", tmp_path, "mine", {"seed": 3})
    tracker.log(1, {"evaluation/loss": 2.5})
    tracker.close()
    [found] = mlflow.search_runs(experiment_names=["fedit"], output_format="list")
    assert found.data.metrics == {"evaluation/loss": 2.5}
    assert found.info.run_name == "mine"
    assert (tmp_path / "mlflow.db").exists()


def test_wandb_offline_keeps_its_files_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = open_tracker("wandb", tmp_path, "mine", {"seed": 3})
    tracker.log(1, {"evaluation/loss": 2.5})
    tracker.close()
    [written] = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    end = time.monotonic() + 60  # its writer is a process of its own, which may lag behind
    while b"evaluation/loss" not in written.read_bytes() and time.monotonic() < end:
        time.sleep(0.1)
    assert b"evaluation/loss" in written.read_bytes()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_tracker_names_its_extra(name, tmp_path, monkeypatch):
    package = {"tensorboard": "torch.utils.tensorboard"}.get(name, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"pip install 'fedit\[{name}\]'"):
        open_tracker(name, tmp_path, "mine", {})


def test_a_missing_tracker_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="trackers: tensorboard"):
        finish(tiny(tmp_path / "run", trackers=["tensorboard"]))
    assert not (tmp_path / "run").exists(), "the same command works once the extra is installed"
