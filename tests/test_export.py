"""Every kind of adapter through a whole run, scored, loaded again and exported as a full model."""

import json
from functools import cache

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from fedit import InputError, make_plan, run
from fedit.cli import app
from fedit.core.tree import same
from fedit.export import export
from fedit.score import load_run, score
from tests.tiny import finish, tiny
from tests.zoo import ADAPTERS, ARCHITECTURES, PEFT_KINDS, logits

RUNS = [("llama", kind) for kind in (*PEFT_KINDS, "lora_xs", "full")] + [
    ("gpt2", "bitfit"),
    ("gpt2", "full"),
]
MERGED = [pair for pair in RUNS if pair[1] not in ("prefix", "prompt")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two clients by architecture and kind of adapter, made when first asked for."""

    @cache
    def make(kind: str, adapter: str, **model):
        output = tmp_path_factory.mktemp("runs") / "run"
        plan = make_plan(
            {
                "name": f"{kind}-{adapter}",
                "model": {
                    "config": {"model_type": kind, **ARCHITECTURES[kind]},
                    "device": "cpu",
                    **model,
                },
                "adapter": ADAPTERS[adapter].model_dump(),
                "data": {"train": "microworld", "limit": 24, "holdout": {"size": 4}},
                "template": {"name": "plain", "max_length": 96},
                "partition": {"clients": 2},
                "federation": {"rounds": 2},
                "local": {"steps": 2, "batch": 4, "lr": 0.05},
                "evaluation": {"max_new_tokens": 4},
                "threads": torch.get_num_threads(),
                "output": str(output),
            }
        )
        return output, list(run(plan))

    return make


@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # PEFT's, of virtual tokens
@pytest.mark.parametrize(("kind", "adapter"), RUNS)
def test_every_kind_learns_in_a_run_and_is_scored_and_loaded_as_it_was(finished, kind, adapter):
    folder, rounds = finished(kind, adapter)
    assert [done.round for done in rounds] == [0, 1, 2]
    assert all(not done.record.get("failures") for done in rounds)
    first, last = rounds[0].adapter, rounds[-1].adapter
    assert all(not torch.equal(first[name], last[name]) for name in first), "not all of it moved"
    loaded = load_run(folder)
    assert same(loaded.adapted.read(), last)
    scored = score(folder)
    assert scored["round"] == 2
    assert scored["loss"] == pytest.approx(rounds[-1].loss, rel=1e-6)
    assert scored["loss"] != pytest.approx(rounds[0].loss, rel=1e-6)
    assert 0 <= scored["token_f1"] <= 1
    assert scored["rows"] == 4


@pytest.mark.parametrize("adapter", PEFT_KINDS)
def test_plain_peft_loads_a_runs_adapter_on_its_base(finished, adapter):
    folder, _ = finished("llama", adapter, kernels="plain")
    said = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(said["base_model_name_or_path"])
    theirs = PeftModel.from_pretrained(base, folder / "adapter").eval()
    assert torch.equal(logits(theirs), logits(load_run(folder).adapted.model.eval()))


@pytest.mark.parametrize("adapter", ["bitfit", "full"])
def test_trained_base_weights_load_into_the_base(finished, adapter):
    folder, rounds = finished("gpt2", adapter)
    tree = load_file(folder / "adapter" / "adapter.safetensors")
    assert same(tree, rounds[-1].adapter)
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    before = logits(base)
    assert not base.load_state_dict(tree, strict=False).unexpected_keys
    assert torch.equal(logits(base), logits(load_run(folder).adapted.model.eval()))
    assert not torch.equal(logits(base), before), "the base was saved trained"


@pytest.mark.parametrize(("kind", "adapter"), MERGED)
def test_an_exported_model_says_what_the_run_says(finished, kind, adapter, tmp_path):
    folder, _ = finished(kind, adapter)
    target = tmp_path / "model"
    export(folder, target)
    loaded = load_run(folder)
    theirs = AutoModelForCausalLM.from_pretrained(target).eval()
    ours = logits(loaded.adapted.model.eval())
    assert "PeftModel" not in type(theirs).__name__
    # Merging adds the same numbers in another order: a few units in the last place of fp32.
    torch.testing.assert_close(logits(theirs), ours, rtol=1e-4, atol=1e-5)
    if adapter in ("bitfit", "full"):
        assert torch.equal(logits(theirs), ours)
    base = AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    far = (logits(base) - ours).abs().max()
    assert far > 100 * (logits(theirs) - ours).abs().max(), "the base would have passed as well"
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert tokenizer.get_vocab() == loaded.base.tokenizer.get_vocab()
    assert not {path.suffix for path in target.iterdir()} & {".bin", ".pt", ".pkl"}


@pytest.mark.parametrize("adapter", ["prefix", "prompt"])
def test_virtual_tokens_cannot_be_exported(finished, adapter, tmp_path):
    folder, _ = finished("llama", adapter)
    with pytest.raises(InputError, match=rf"adapter\.kind {adapter}: .*from_pretrained instead"):
        export(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_target_with_something_in_it_is_refused_and_kept(finished, tmp_path):
    folder, _ = finished("llama", "lora")
    (tmp_path / "mine.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(InputError, match="not an empty folder; name a new one"):
            export(folder, target)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(folder, tmp_path / "empty")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no plan\.yaml"):
        export(tmp_path, tmp_path / "model")


def test_the_card_tells_how_the_model_was_made(finished, tmp_path):
    folder, rounds = finished("llama", "lora")
    export(folder, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    trained = sum(t.numel() for t in rounds[0].adapter.values())
    for said in (
        "# llama-lora",
        "| Base | random weights, made from the plan's model.config |",
        "| Method | fedavg, lora adapter |",
        f"| Trained | {trained:,} of ",
        "| Clients | 2, 2 rounds |",
        f"{rounds[0].loss:.4f} before (round 0), {rounds[2].loss:.4f} after round 2",
        "| Prompt template | plain |",
        "| Seed | 0 |",
        "torch ",
        "no privacy guarantee",
    ):
        assert said in card, said
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "base_model" not in card.split("---")[1], "a model made here is on no hub"
    assert str(tmp_path) not in card
    assert str(folder) not in card


def test_the_card_of_a_local_base_names_no_hub_id(finished, tmp_path, monkeypatch):
    made_here, _ = finished("llama", "lora")
    monkeypatch.chdir(made_here)
    plan = make_plan(
        {
            "model": {"base": "./base", "device": "cpu"},
            "data": {"train": "microworld", "limit": 8},
            "template": {"name": "plain", "max_length": 96},
            "partition": {"clients": 2},
            "federation": {"rounds": 1},
            "local": {"steps": 1, "batch": 2},
            "output": str(tmp_path / "run"),
        }
    )
    list(run(plan))
    export(tmp_path / "run", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "base_model" not in card
    assert "| Base | base (a local folder) |" in card
    assert str(made_here) not in card
    assert "| Held-out loss | not measured |" in card


def test_a_bf16_base_is_exported_in_bf16(finished, tmp_path):
    folder, _ = finished("llama", "lora", precision="bf16")
    export(folder, tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert {p.dtype for p in theirs.parameters()} == {torch.bfloat16}
    ours = logits(load_run(folder).adapted.model.eval()).float()
    # Merged weights are rounded to bf16 (8 bits), which the run's own sum of two products is not.
    torch.testing.assert_close(logits(theirs).float(), ours, rtol=0.05, atol=0.03)


def test_each_cluster_can_be_scored_and_exported(tmp_path):
    folder = tmp_path / "run"
    finish(tiny(folder, algorithm={"name": "ifca", "spread": 2.0}, federation={"rounds": 1}))
    scored, weights = [], []
    for cluster in range(2):
        words = ["--cluster", str(cluster)]
        said = CliRunner().invoke(app, ["evaluate", str(folder), *words, "--json"])
        assert said.exit_code == 0, said.output
        scored.append(json.loads(said.stdout)["loss"])
        target = tmp_path / f"model-{cluster}"
        assert CliRunner().invoke(app, ["export", str(folder), str(target), *words]).exit_code == 0
        model = AutoModelForCausalLM.from_pretrained(target)
        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        name = f"adapter-cluster-{cluster}" if cluster else "adapter"
        theirs = PeftModel.from_pretrained(base, str(folder / name)).merge_and_unload()
        weights.append(model.state_dict())
        for key, expected in theirs.state_dict().items():
            torch.testing.assert_close(weights[-1][key], expected, rtol=0, atol=1e-6)
    assert scored[0] != scored[1]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    with pytest.raises(InputError, match=r"cluster 2: .* has 2 global models, counted from 0"):
        export(folder, tmp_path / "none", cluster=2)
    assert not (tmp_path / "none").exists()
