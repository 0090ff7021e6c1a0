"""What an estimate says is what a run then does."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import fedit
from fedit.algorithms.exactness import COLUMNS
from fedit.build import build
from fedit.cli import app
from fedit.core.errors import FeditError, InputError
from fedit.engines.homes import GENERATIONS
from fedit.estimating import calibration
from fedit.estimating import estimate as module
from fedit.estimating.calibration import Speed, in_parts
from fedit.estimating.table import table
from fedit.recipe import dump_plan
from tests.tiny import CONFIG, finish, journal, tiny

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def counted(plan: fedit.Plan) -> dict:
    return fedit.estimate(plan, calibrated=False).to_dict()


@pytest.mark.parametrize(
    ("targets", "per_layer", "fewer"),
    [
        (ATTENTION, 4 * (4096 + 4096), 0.9987),
        ("all-linear", 4 * (4096 + 4096) + 3 * (4096 + 11008), 0.997),
    ],
)
def test_llama_7b_counts_by_formula(targets, per_layer, fewer, tmp_path):
    """The paper's claim: at least 99.7 % fewer parameters train than the base has."""
    plan = tiny(
        tmp_path,
        model={"config": LLAMA},
        adapter={"rank": 8, "targets": targets},
        local={"micro_batch": 1},
    )
    found = counted(plan)["parameters"]
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert found["base"] == 2 * 32000 * 4096 + 32 * layer + 4096 == 6_738_415_616
    assert found["active"] == found["base"] - 32000 * 4096
    assert found["adapter"] == 32 * 8 * per_layer
    assert 1 - found["share"] > fewer


@pytest.mark.parametrize(
    "changes",
    [
        {"federation": {"cohort": 1.0}, "local": {"epochs": 2, "steps": None}},
        {"local": {"epochs": 1, "steps": None}, "algorithm": {"name": "fedprox"}},
        {"adapter": {"kind": "prefix"}, "federation": {"cohort": 1.0, "unbiased": True}},
        {
            "adapter": {"kind": "full"},
            "partition": {"by": "sizes", "clients": 4, "minimum": 5},
            "federation": {"sampler": "poisson", "rounds": 12},
        },
    ],
    ids=["everybody", "cohorts", "unbiased", "poisson"],
)
def test_messages_and_tokens_are_those_of_the_run(changes, tmp_path):
    plan = fedit.make_plan({**tiny(tmp_path / "run").model_dump(), **sections(changes)})
    found = counted(plan)
    assert not (tmp_path / "run").exists()
    assert len(list(fedit.run(plan))) == plan.federation.rounds + 1
    rounds = journal(tmp_path / "run")[1:]
    replies = [metrics for record in rounds for metrics in record["clients"].values()]
    assert found["cohort"] * len(rounds) == len(replies)
    assert found["bytes"]["down"]["run"] == sum(record["bytes_down"] for record in rounds)
    # loss and seconds travel as numbers of more or fewer digits: 16 bytes at the most
    assert found["bytes"]["up"]["run"] == pytest.approx(
        sum(record["bytes_up"] for record in rounds), abs=16 * len(replies)
    )
    if plan.local.epochs:
        assert found["tokens"]["run"] == sum(record["tokens"] for record in rounds)
    known = json.loads((tmp_path / "run" / "environment.json").read_text())["parameters"]
    assert found["parameters"]["adapter"] == known["trained"]
    full = plan.adapter.kind == "full"
    assert found["parameters"]["base"] + (0 if full else known["trained"]) == known["all"]
    if full:
        assert found["full"]["ratio"] == 1
        assert found["flops"]["per_token"] == 6 * found["parameters"]["active"]


def test_clients_of_unlike_ranks_are_told_apart_though_their_rows_are_alike(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Say it.", "completion": "It is."}\n' * 16)
    plan = tiny(
        tmp_path / "run",
        data={"train": str(rows), "holdout": None, "limit": None, "duplicates": "keep"},
        adapter={"rank": 8, "ranks": {"tiers": [1, 8]}},
        algorithm="hetlora",
        federation={"rounds": 1, "cohort": 4},
    )
    found = counted(plan)["bytes"]
    finish(plan)
    last = journal(tmp_path / "run")[-1]
    assert found["down"]["run"] == last["bytes_down"]
    assert found["up"]["run"] == pytest.approx(last["bytes_up"], abs=16 * 4)


def sections(changes: dict) -> dict:
    """Whole sections, as the tiny plan has them but for the changes."""
    plain = {key: value for key, value in changes.items() if key != "adapter"}
    whole = tiny(Path("unused"), **plain).model_dump()
    return {key: changes[key] if key == "adapter" else whole[key] for key in changes}


def test_tokens_of_steps_are_their_average_over_orders(tmp_path):
    plan = tiny(tmp_path / "run", federation={"rounds": 40, "cohort": 1.0})
    found = counted(plan)
    finish(plan)
    seen = sum(record["tokens"] for record in journal(tmp_path / "run")[1:])
    assert found["tokens"]["run"] == pytest.approx(seen, rel=0.05)


def test_dropouts_send_nothing(tmp_path):
    whole = counted(tiny(tmp_path))
    half = counted(tiny(tmp_path, federation={"dropout": 0.5}))
    assert half["bytes"]["up"]["run"] == whole["bytes"]["up"]["run"] / 2
    assert half["tokens"]["run"] == whole["tokens"]["run"] / 2


def test_full_weights_are_the_runs_own_with_full_tuning(tmp_path):
    lora = counted(tiny(tmp_path))
    full = fedit.make_plan({**tiny(tmp_path).model_dump(), "adapter": {"kind": "full"}})
    sent = counted(full)["bytes"]
    assert lora["full"]["down"] == sent["down"]
    assert lora["full"]["up"] == sent["up"]
    assert lora["full"]["ratio"] > 1


@pytest.mark.parametrize(
    "algorithm",
    [{"name": "ffa_lora"}, {"name": "ifca"}, {"name": "fedper", "personal": ["lora_B"]}],
)
def test_full_weights_are_all_of_them_whatever_a_method_picks_by_name(algorithm, tmp_path):
    usual, found = (counted(tiny(tmp_path, **more)) for more in ({}, {"algorithm": algorithm}))
    assert found["full"]["up"] == usual["full"]["up"]
    assert found["parameters"] == usual["parameters"]


@pytest.mark.parametrize(
    ("local", "moments"),
    [
        ({"optimizer": "adamw"}, 2),
        ({"optimizer": "sgd"}, 0),
        ({"optimizer": "sgd", "momentum": 0.9}, 1),
    ],
)
def test_an_adapter_takes_weights_gradients_and_the_optimizers_moments(local, moments, tmp_path):
    found = counted(tiny(tmp_path, local=local))
    count, memory = found["parameters"]["adapter"], found["memory"]
    tensors = 2 * 7 * CONFIG["num_hidden_layers"]
    assert memory["adapter"] == memory["gradients"] == 4 * count
    assert memory["optimizer"] == moments * 4 * count + (4 * tensors if moments == 2 else 0)
    outputs = 2 * (32 + 16 + 16 + 32 + 64 + 64 + 32)  # whose sketches are summed as the adapter is
    assert memory["server"] == (8 + 3 * 4) * count + 8 * COLUMNS * outputs
    known = ("base", "adapter", "gradients", "optimizer", "activations", "logits", "process")
    assert memory["peak"] == sum(memory[key] for key in known) + memory["server"]


def test_precision_and_quantisation_show_in_the_base(tmp_path):
    def base(**model) -> int:
        return counted(tiny(tmp_path / "x", model=model))["memory"]["base"]

    full, half = base(), base(precision="bf16")
    buffers = 2 * 8 * 4  # rotary frequencies stay as they are
    assert abs(full - 2 * half) <= buffers * 2


def test_homes_hold_what_clients_keep(tmp_path):
    changes = {"local": {"keep_optimizer": True}, "federation": {"cohort": 1.0, "rounds": 6}}
    plan = tiny(tmp_path / "run", **changes)
    finish(plan)
    last = journal(tmp_path / "run")[-1]["clients"].values()
    kept = sum(metrics["bytes_kept"] for metrics in last)
    assert counted(plan)["memory"]["homes"] == kept * (GENERATIONS + 1)
    files = list((tmp_path / "run" / "homes").glob("*/*.home"))
    assert len(files) == (GENERATIONS + 1) * plan.partition.clients
    assert counted(tiny(tmp_path / "other"))["memory"]["homes"] == 0


@pytest.mark.filterwarnings("ignore:`?gradient_checkpointing")
def test_a_smaller_micro_batch_or_checkpointing_needs_less(tmp_path):
    whole = counted(tiny(tmp_path))["memory"]
    parts = counted(tiny(tmp_path, local={"micro_batch": 1}))["memory"]
    saved = counted(tiny(tmp_path, model={"gradient_checkpointing": True}))["memory"]
    assert parts["activations"] < 0.4 * whole["activations"]
    assert saved["activations"] < whole["activations"]


def test_memory_is_that_of_the_way_the_run_takes(tmp_path):
    fused = build(tiny(tmp_path), tmp_path, blank=True).forward
    assert fused.packs
    assert fused.plain_head
    ours = counted(tiny(tmp_path))["memory"]
    plain = counted(tiny(tmp_path, model={"kernels": "plain"}))["memory"]
    for part in ("activations", "logits", "evaluation"):
        assert ours[part] < plain[part]


@pytest.mark.parametrize(
    ("processes", "cores", "cohort", "at_once"),
    [(2, 2, 2, 2), (2, 2, 3, 1.5), (8, 2, 4, 2), (None, 4, 4, 4), (3, 8, 1000, 32 / 11)],
)
def test_workers_train_at_once_as_far_as_there_are_cores_and_clients(
    processes, cores, cohort, at_once, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    plan = tiny(tmp_path, engine={"kind": "workers", "processes": processes})
    assert module.clients_at_once(plan, cohort) == pytest.approx(at_once)


def test_hours_with_workers_are_of_one_thread_and_shared(tmp_path, monkeypatch):
    seen = []

    def calibrate(job, seconds):
        seen.append(job.plan.engine.kind)
        return Speed(client=1.0, step=0.1, token=0.001, scored=0.001, round=0.5, loading=2.0)

    monkeypatch.setattr(module, "calibrate", calibrate)
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    alone = fedit.estimate(tiny(tmp_path))
    shared = fedit.estimate(tiny(tmp_path, engine={"kind": "workers", "processes": 2}))
    assert seen == ["inprocess", "workers"]
    assert shared.hours.training == pytest.approx(alone.hours.training / 2)
    assert shared.hours.server == alone.hours.server
    assert shared.notes[-1].startswith("engine: time assumes")


def test_workers_are_timed_with_one_thread_in_this_process(tmp_path, monkeypatch):
    threads = []
    fits = calibration._fits
    monkeypatch.setattr(module, "SECONDS", 0.1)
    monkeypatch.setattr(
        calibration, "_fits", lambda *given: threads.append(torch.get_num_threads()) or fits(*given)
    )
    for engine in ("inprocess", "workers"):
        found = fedit.estimate(tiny(tmp_path, threads=2, engine=engine))
        assert found.hours.training > 0
    assert threads == [2, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base's folder, as a run writes it."""
    path = tmp_path_factory.mktemp("made") / "run"
    finish(tiny(path, federation={"rounds": 1}))
    return path / "base"


def test_without_calibration_no_weights_are_read(folder, tmp_path):
    plan = tiny(tmp_path / "run", model={"config": None, "base": str(folder)})
    whole = counted(plan)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    try:
        bare = counted(plan)
        with pytest.raises(InputError, match=r"model\.base"):
            fedit.estimate(plan)
    finally:
        weights.write_bytes(content)
    for found in (whole, bare):
        del found["memory"]["process"], found["memory"]["peak"], found["memory"]["free"]
    assert whole == bare
    assert bare["seconds"] is None


def test_a_base_that_is_none_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    plan = tiny(tmp_path / "run", model={"config": None, "base": str(tmp_path / "empty")})
    with pytest.raises(InputError, match=r"model\.base.*empty"):
        fedit.estimate(plan, calibrated=False)


def test_a_calibration_times_every_part_and_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    found = fedit.estimate(tiny(tmp_path / "run", threads=1))
    said = found.to_dict()["seconds"]
    parts = [said[key] for key in ("loading", "training", "server", "evaluation")]
    assert min(parts) > 0
    assert said["total"] == sum(parts)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []
    assert found.memory.peak >= sum((found.memory.process, found.memory.base))


@pytest.mark.parametrize("name", ["fednova", "qfedavg", "ifca"])
def test_a_method_that_needs_clients_to_measure_is_timed_as_well(name, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.01)
    found = fedit.estimate(tiny(tmp_path / "run", threads=1, algorithm={"name": name}))
    assert found.to_dict()["seconds"]["server"] > 0


def test_training_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)
    plan = tiny(tmp_path / "run", local={"lr": 1e30, "clip": None})
    with pytest.raises(FeditError, match=r"calibration: client .* failed"):
        fedit.estimate(plan)


def test_seconds_are_parted_into_clients_steps_and_tokens():
    points = [
        (steps, tokens, 2.0 + 0.5 * steps + 0.001 * tokens)
        for steps, tokens in [(1, 200), (1, 900), (8, 3000), (20, 11000)]
    ]
    assert in_parts(points) == pytest.approx((2.0, 0.5, 0.001))
    client, step, token = in_parts([(1, 100, 0.1), (2, 200, 0.2)])  # nothing tells these apart
    assert client + 3 * step + 300 * token == pytest.approx(0.3)


def test_a_run_that_does_not_fit_is_counted_and_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free", lambda device: 1000)
    found = fedit.estimate(tiny(tmp_path / "run"))
    assert found.hours is None
    assert "cannot hold the run" in found.notes[-1]


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_plan(tiny(tmp_path / "run")))
    return path


def test_the_command_prints_json_or_a_table(recipe, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)
    words = ["estimate", str(recipe), "federation.rounds=4", "--json"]
    said = CliRunner().invoke(app, [*words, "--no-calibrate"], catch_exceptions=False)
    assert json.loads(said.stdout)["rounds"] == 4
    shown = CliRunner().invoke(app, words[:-1], catch_exceptions=False).stdout
    for word in ("adapter", "activations", "bytes down", "full weights", "time in all"):
        assert word in shown
    assert not (recipe.parent / "run").exists()


def test_the_command_refuses_as_others_do(recipe):
    result = CliRunner().invoke(app, ["estimate", str(recipe), "data.train=missing.jsonl"])
    assert isinstance(result.exception, InputError)


def test_every_row_of_a_table_is_a_name_an_amount_and_a_word(tmp_path):
    shown = table(fedit.estimate(tiny(tmp_path), calibrated=False))
    assert shown.row_count > 12
    assert [len(column._cells) for column in shown.columns] == [shown.row_count] * 3
