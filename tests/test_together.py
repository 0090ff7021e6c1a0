"""`engine.together` in a plan and in whole runs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedit import run
from fedit.core.errors import InputError
from fedit.runner import Run
from tests.tiny import finish, journal, tiny

OPTIONS = {
    "engine": {"together": 3},
    "federation": {"rounds": 2, "cohort": 1.0},
    "local": {"steps": None, "epochs": 1, "batch": 8, "keep_optimizer": True},
    "algorithm": {"name": "fedprox", "mu": 0.1},
}


def adapter(folder: Path) -> torch.Tensor:
    tree = load_file(folder / "adapter" / "adapter_model.safetensors")
    return torch.cat([tree[name].flatten() for name in sorted(tree)])


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bytes(tmp_path):
    wanted = finish(tiny(tmp_path / "whole", **OPTIONS))
    next(done for done in run(tiny(tmp_path / "cut", **OPTIONS)) if done.round == 1)
    assert finish(tiny(tmp_path / "cut", **OPTIONS), resume=True) == wanted
    alone = {**OPTIONS, "engine": {"together": 1}}
    finish(tiny(tmp_path / "alone", **alone))
    one, other = adapter(tmp_path / "alone"), adapter(tmp_path / "whole")
    assert (one - other).norm() <= 1e-3 * one.norm()
    for mine, usual in zip(journal(tmp_path / "whole"), journal(tmp_path / "alone"), strict=True):
        assert mine["evaluation"]["loss"] == pytest.approx(usual["evaluation"]["loss"], rel=1e-4)
    with pytest.raises(InputError, match=r"engine\.together"):
        Run(tiny(tmp_path / "whole", **alone), resume=True)


def test_one_at_once_is_the_usual_run_to_the_bit(tmp_path):
    """Also where the model turns out to be none whose clients can be stacked, which a note tells."""
    usual = {k: v for k, v in OPTIONS.items() if k != "engine"}
    dropping = {"model": {"config": {**tiny(tmp_path).model.config, "attention_dropout": 0.1}}}
    for name, more in (("plain", {}), ("dropping", dropping)):
        wanted = finish(tiny(tmp_path / name, **usual, **more))
        engine = {"together": 1 if name == "plain" else 3}
        plan = tiny(tmp_path / f"{name} again", **{**usual, **more, "engine": engine})
        with Run(plan) as opened:
            assert any("dropout" in note for note in opened.notes) == (name == "dropping")
        assert finish(plan, resume=True) == wanted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"adapter": {"dora": True}}, "adapter.dora"),
        ({"adapter": {"dropout": 0.1}}, "adapter.dropout 0.1"),
        ({"model": {"kernels": "plain"}}, "model.kernels plain"),
        ({"engine": {"kind": "workers", "together": 2}}, "together"),
        ({"engine": {"together": 0}}, "together"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(changes, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        tiny(tmp_path, **{"engine": {"together": 2}, **changes})
