"""The gate's bounds in a whole run: told in the journal, kept over a kill, and free to change on resume."""

from pathlib import Path

import pytest

from fedit import run
from fedit.core.norms import MEDIANS
from fedit.core.rounds import TooFewReplies
from fedit.report.folder import RunFolder
from tests.tiny import adapter_bytes, finish, journal, tiny

LOOSE = {"norm": 1e6, "factors": 1e6, "times_median": 1e6}


def median(folder: Path) -> list[float]:
    record = RunFolder(folder, read_only=True)
    state, _ = record.latest(record.environment()["run"])
    return state.private[MEDIANS]["adapter"].tolist()


def test_bounds_that_nobody_reaches_change_no_byte_and_tell_the_norms(tmp_path):
    plain, loose = tmp_path / "plain", tmp_path / "loose"
    assert finish(tiny(plain)) == finish(tiny(loose, gate=LOOSE))
    told = [set(one) for record in journal(loose)[1:] for one in record["clients"].values()]
    assert all({"adapter_norm", "factors_norm"} <= names for names in told)
    assert not any(
        "adapter_norm" in one for r in journal(plain)[1:] for one in r["clients"].values()
    )
    norms = [[c["adapter_norm"] for c in r["clients"].values()] for r in journal(loose)[1:]]
    assert median(loose) == [sum(pair) / 2 for pair in norms]


def test_a_resumed_run_has_the_same_bounds(tmp_path):
    gate, everyone = (
        {"times_median": 1.28},
        {"cohort": 4, "minimum": 1},
    )  # one of them moves farther
    plans = [tiny(tmp_path / name, gate=gate, federation=everyone) for name in ("a", "b")]
    finish(plans[0])
    refused = [r["failures"] for r in journal(tmp_path / "a")[1:]]
    assert any(f["reason"] == "norm" for one in refused for f in one)
    assert refused[0] == []
    for done in run(plans[1]):
        if done.round == 1:
            break
    finish(plans[1], resume=True)
    assert [r["failures"] for r in journal(tmp_path / "b")[1:]] == refused
    assert adapter_bytes(tmp_path / "a") == adapter_bytes(tmp_path / "b")


def test_a_bound_that_stops_a_run_may_be_lifted_on_resume(tmp_path):
    with pytest.raises(TooFewReplies, match="norm: adapter: its norm is"):
        finish(tiny(tmp_path / "run", gate={"norm": 1e-9}))
    assert finish(tiny(tmp_path / "run"), resume=True) == finish(tiny(tmp_path / "never"))
