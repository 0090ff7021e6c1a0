"""Runs that add to the base's weights, or with clients of unlike ranks, from the plan to a model in use."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fedit import run
from fedit.core.lora import products, rank_of
from fedit.core.messages import ADAPTER, BASE
from fedit.core.tree import same
from fedit.export import export
from fedit.runner import Run
from fedit.score import load_run, saved_run, score
from fedit.train.whole import ERROR
from tests.tiny import adapter_bytes, finish, journal, tiny
from tests.zoo import ARCHITECTURES, logits

METHODS = ("fedex_lora", "flora")
GPT2 = {"model_type": "gpt2", **ARCHITECTURES["gpt2"], "vocab_size": 400}
RUNS = [*((method, "llama") for method in METHODS), ("flora", "gpt2")]

each = pytest.mark.parametrize("method", METHODS)
each_run = pytest.mark.parametrize(("method", "kind"), RUNS)


def planned(folder, method: str, kind: str = "llama", **changes):
    model = {"model": {"config": GPT2}} if kind == "gpt2" else {}
    changes = {"local": {"lr": 3e-2, "steps": 4}, **model, **changes}
    return tiny(folder, algorithm=method, **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run's folder by method and architecture."""

    @cache
    def make(method: str, kind: str = "llama"):
        folder = tmp_path_factory.mktemp(method) / "run"
        finish(planned(folder, method, kind))
        return folder

    return make


def changes_of(folder) -> dict[str, np.ndarray]:
    """s B A + what was added, by layer."""
    saved = saved_run(folder)
    scale, public = saved.plan.adapter.scale, saved.state.public
    found = products(public[ADAPTER])
    return {y: (scale * t + public[BASE][y].double()).numpy() for y, t in found.items()}


def norm(matrices) -> float:
    return float(np.sqrt(sum(np.square(m).sum() for m in matrices)))


@each_run
def test_it_learns_and_adds_to_the_base(done, method, kind):
    records = journal(done(method, kind))
    losses = [record["evaluation"]["loss"] for record in records]
    assert losses[-1] < losses[0] - 0.05
    assert all(not record["failures"] for record in records[1:])
    added = saved_run(done(method, kind)).state.public[BASE]
    assert all(bool(value.any()) for value in added.values())


def test_exactness_is_measured_where_the_plan_asks_for_it(tmp_path):
    lost = {}
    for method in ("fedavg", "fedex_lora", "flora"):
        folder = tmp_path / method
        finish(planned(folder, method, evaluation={"exactness": True}))
        lost[method] = [record["lost"] for record in journal(folder)[1:]]
    assert min(lost["fedavg"]) > 1e-3
    assert max(lost["fedex_lora"] + lost["flora"]) < 1e-4


@each
def test_stopped_and_resumed_it_is_the_same_run(done, method, tmp_path):
    plan = planned(tmp_path / "run", method)
    for finished in run(plan):
        if finished.round == 2:
            break
    assert finished.adapter is finished.public[ADAPTER]
    assert any(bool(value.any()) for value in finished.public[BASE].values())
    assert finish(plan, resume=True) == adapter_bytes(done(method))
    states = [saved_run(folder).state.public for folder in (done(method), tmp_path / "run")]
    assert all(same(states[0][role], states[1][role]) for role in (ADAPTER, BASE))


@each
def test_through_bytes_it_is_the_same_run(done, method, tmp_path):
    assert finish(planned(tmp_path / "run", method, engine="loopback")) == adapter_bytes(
        done(method)
    )


@each_run
def test_the_scored_model_is_the_one_the_journal_tells_of(done, method, kind):
    folder = done(method, kind)
    assert score(folder)["loss"] == pytest.approx(journal(folder)[-1]["evaluation"]["loss"], 1e-6)


@each_run
def test_the_adapter_alone_is_the_runs_model_within_the_error_it_states(done, method, kind):
    folder = done(method, kind)
    said = json.loads((folder / "adapter" / "fedit.json").read_text())
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == said["rank"]
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    bare = logits(base.eval())
    theirs = PeftModel.from_pretrained(base, folder / "adapter").eval()
    wanted = changes_of(folder)
    apart = []
    for layer, change in wanted.items():
        delta = theirs.get_submodule(layer).get_delta_weight("default").detach().double().numpy()
        apart.append((delta.T if kind == "gpt2" else delta) - change)
    error = norm(apart) / norm(wanted.values())
    assert error == pytest.approx(said["error"], rel=1e-3, abs=1e-6)
    assert error <= ERROR
    ours = logits(load_run(folder).adapted.model.eval())
    off, far = float((logits(theirs) - ours).norm()), float((ours - bare).norm())
    assert off < 0.03 * far


@each_run
def test_no_lower_rank_would_do(done, method, kind):
    folder = done(method, kind)
    rank = json.loads((folder / "adapter" / "fedit.json").read_text())["rank"]
    wanted = changes_of(folder).values()
    tails = [np.linalg.svd(change, compute_uv=False) for change in wanted]
    left = [norm(s[r:] for s in tails) / norm(wanted) for r in (rank - 1, rank)]
    assert left[1] <= ERROR < left[0]
    assert rank > saved_run(folder).plan.adapter.rank, "the residual must count here"


@each
def test_the_run_notes_rank_and_error_and_opening_it_again_writes_the_same(done, method):
    before = adapter_bytes(done(method))
    with Run(planned(done(method), method), resume=True) as opened:
        assert list(opened.rounds()) == []
        said = json.loads((done(method) / "adapter" / "fedit.json").read_text())
        assert f"adapter/ has rank {said['rank']}: " in opened.notes[-1]
        assert f"{said['error']:.2%}" in opened.notes[-1]
    assert adapter_bytes(done(method)) == before


def test_rslora_scales_its_factors_and_not_the_whole(tmp_path):
    folder = tmp_path / "run"
    finish(planned(folder, "fedex_lora", adapter={"rslora": True}))
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    theirs = PeftModel.from_pretrained(base, folder / "adapter")
    deltas = {
        y: theirs.get_submodule(y).get_delta_weight("default").detach().double().numpy()
        for y in changes_of(folder)
    }
    wanted = changes_of(folder)
    assert norm(deltas[y] - wanted[y] for y in wanted) <= ERROR * norm(wanted.values())


@each_run
def test_an_exported_model_says_exactly_what_the_run_says(done, method, kind, tmp_path):
    export(done(method, kind), tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ours = logits(load_run(done(method, kind)).adapted.model.eval())
    # Merging adds the same numbers in another order: a few units in the last place of fp32.
    torch.testing.assert_close(logits(theirs), ours, rtol=1e-4, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(done(method, kind) / "base").eval()
    assert float((logits(base) - ours).abs().max()) > 0.01


def test_other_methods_write_their_adapter_as_it_is(tmp_path):
    finish(planned(tmp_path / "run", "ffa_lora"))
    assert not (tmp_path / "run" / "adapter" / "fedit.json").exists()
    found = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert same(found, saved_run(tmp_path / "run").state.adapter)


@pytest.mark.parametrize("method", ["hetlora", "flexlora", "flora"])
def test_clients_of_unlike_ranks_from_end_to_end(method, tmp_path):
    changes = {
        "adapter": {"rank": 4, "ranks": {"tiers": [1, 4]}},
        "federation": {"cohort": 4, "rounds": 2},
    }
    folder = tmp_path / "run"
    usual = finish(planned(folder, method, **changes))
    records = journal(folder)
    assert records[-1]["evaluation"]["loss"] < records[0]["evaluation"]["loss"] - 0.1
    assert rank_of(saved_run(folder).state.adapter) == 4
    more = sum(t.nbytes for t in saved_run(folder).state.adapter.values()) * 3 / 4
    for record in records[1:]:
        assert not record["failures"]
        for key in ("bytes_up", "bytes_down"):
            low, other, high, most = sorted(own[key] for own in record["clients"].values())
            assert abs(low - other) < 200, "two of rank 1"
            assert abs(high - most) < 200, "two of rank 4"
            assert high - low > 0.99 * more
    assert finish(planned(tmp_path / "bytes", method, engine="loopback", **changes)) == usual
    plan = planned(tmp_path / "stopped", method, **changes)
    for finished in run(plan):
        if finished.round == 1:
            break
    assert finish(plan, resume=True) == usual
