"""Clients' own models: what is scored is what the papers say, worked out here without fedit's scoring."""

import json
import math
import shutil
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedit import FeditError, InputError, run
from fedit.build import Job, build
from fedit.cli import app
from fedit.core.messages import BASE, KEPT
from fedit.core.tree import Tree, same
from fedit.corpus import read_data
from fedit.engines.homes import Homes
from fedit.evaluate.scores import exact_match, token_f1
from fedit.personal import personal
from fedit.records import numbers_of
from fedit.score import saved_run
from tests.faults.test_kill import in_child
from tests.tiny import finish, journal, tiny

SPLIT = {"clients": 4, "validation": 0.2}
SHORT = {"clients": True, "max_new_tokens": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The run folder of an algorithm, trained once."""

    @cache
    def of(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "run"
        algorithm = {"name": name, **({"spread": 2.0} if name == "ifca" else {})}
        finish(tiny(folder, algorithm=algorithm, partition=SPLIT, evaluation=SHORT))
        return folder

    return of


@pytest.fixture(scope="module")
def scored(made):
    """What personal scoring of that run gives."""
    return cache(lambda name: personal(made(name)))


def parts(folder: Path, place: Path) -> tuple[Job, Tree]:
    """A run's model and rows, and its global adapter."""
    saved = saved_run(folder)
    return build(saved.plan, place), saved.state.adapter


def loss(job: Job, model: Tree, rows) -> float:
    """Mean nats a supervised token by the plain model's logits, a row at a time, in fp64."""
    job.adapted.write(model)
    job.adapted.model.eval()
    total, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = job.adapted.model(input_ids=torch.tensor(row.ids[None]).long()).logits
        known = logits[0, :-1].double().numpy()
        highest = known.max(axis=1, keepdims=True)
        nats = (highest + np.log(np.exp(known - highest).sum(axis=1, keepdims=True)))[:, 0]
        learned = np.flatnonzero(row.learn[1:])
        total += float((nats[learned] - known[learned, row.ids[1:][learned]]).sum())
        count += len(learned)
    return total / count


def held(job: Job, client: str) -> list:
    both = zip(job.validation.rows, job.validation.groups, strict=True)
    return [row for row, owner in both if owner == client]


def homes(folder: Path, client: str, round: int = 3):
    return Homes(folder / "homes").load(client, round).payload


@pytest.mark.parametrize("name", ["ditto", "fedsa_lora", "ifca"])
def test_own_models_score_as_worked_out_by_hand(name, made, scored, tmp_path):
    folder, result = made(name), scored(name)
    job, usual = parts(folder, tmp_path)
    clusters = [usual, saved_run(folder).state.public.get("cluster.1")]
    assert result["personal"]
    assert set(result["clients"]) == set(job.trainer.examples) == set(job.validation.groups)
    for client, found in result["clients"].items():
        if name == "ditto":
            own = homes(folder, client).get("personal", usual)
        elif name == "fedsa_lora":
            own = {**usual, **homes(folder, client).get(KEPT, {})}
        else:
            own = min(clusters, key=lambda c: loss(job, c, job.trainer.examples[client]))
        rows = held(job, client)
        assert found["is_global"] == same(own, usual)
        assert found["own_rows"]["own_model"]["rows"] == len(rows) > 0
        by_hand = {"own_model": loss(job, own, rows), "global_model": loss(job, usual, rows)}
        for model, value in by_hand.items():
            assert found["own_rows"][model]["loss"] == pytest.approx(value, rel=1e-5)
        tested = loss(job, own, job.test.rows)
        assert found["test_rows"]["own_model"]["loss"] == pytest.approx(tested, rel=1e-5)
        if name != "ifca" and homes(folder, client):
            assert by_hand["own_model"] != pytest.approx(by_hand["global_model"], rel=1e-4)


def test_without_personal_models_all_are_the_global_one(made, scored):
    result, last = scored("fedavg"), journal(made("fedavg"))[-1]["evaluation"]
    assert not result["personal"]
    assert "every client's own model is the global one" in result["notes"][0]
    assert "--tune" in result["notes"][0]
    for client, found in result["clients"].items():
        for rows in ("own_rows", "test_rows"):
            assert found[rows]["own_model"] == found[rows]["global_model"]
        own = found["own_rows"]["own_model"]
        assert own["loss"] == pytest.approx(last["clients"][client]["loss"], rel=1e-6)
        assert own["tokens"] == last["clients"][client]["tokens"]
        assert found["test_rows"]["own_model"]["loss"] == pytest.approx(last["loss"], rel=1e-6)


def test_the_mean_and_how_even_clients_are(scored):
    result = scored("ditto")
    for model in ("own_model", "global_model"):
        losses = [one["own_rows"][model]["loss"] for one in result["clients"].values()]
        assert result["mean"]["own_rows"][model]["loss"] == pytest.approx(np.mean(losses))
        even = result["fairness"]["own_rows"][model]["loss"]
        assert even["worst"] == max(losses)
        assert even["variance"] == pytest.approx(np.var(losses))
        assert even["jain"] == pytest.approx(sum(losses) ** 2 / (4 * np.square(losses).sum()))


def test_the_journal_says_how_even_groups_and_clients_are(made):
    for record in journal(made("fedavg")):
        found = record["evaluation"]
        for key in ("by", "clients"):
            losses = [one["loss"] for one in found[key].values()]
            even = found["fairness"][key]["loss"]
            assert even["gap"] == pytest.approx(max(losses) - min(losses))
            assert even["count"] == len(losses) > 1
        tracked = {key for key in numbers_of(record) if "clients" in key}
        assert "evaluation/fairness/clients/loss/worst" in tracked
        assert all(key.startswith("evaluation/fairness/") for key in tracked), (
            "not client by client"
        )


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def colours(folder: Path, **changes):
    """Two clients whose answer to everything is a colour of their own, and one with a single row."""
    rows = [
        {"instruction": f"Say {n}", "response": ("red", "blue")[n % 2], "site": f"s{n % 2}"}
        for n in range(40)
    ]
    rows += [{"instruction": "Tell", "response": "red", "site": "small"}]
    file = folder / "rows.jsonl"
    folder.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tiny(
        folder / "run",
        **{
            "data": {"train": str(file), "holdout": None, "limit": None},
            "partition": {"by": "key", "column": "site", "validation": 0.2},
            "federation": {"rounds": 1, "cohort": 3},
            "evaluation": {"max_new_tokens": 8},
            **changes,
        },
    )


def answers(job: Job, model: Tree, examples) -> list[str]:
    """The likeliest token again and again, without padding or a cache."""
    job.adapted.write(model)
    job.adapted.model.eval()
    found = []
    for example in examples:
        ids = list(job.encoder.prompt_ids(example.turns[:-1], 0))
        made: list[int] = []
        while len(made) < 8:
            with torch.no_grad():
                logits = job.adapted.model(input_ids=torch.tensor([ids + made])).logits
            token = int(logits[0, -1].argmax())
            if token in job.encoder.stop_ids:
                break
            made.append(token)
        found.append(job.encoder.decode(made))
    return found


def test_each_client_answers_in_its_own_way_and_the_folder_stays_as_it_is(tmp_path):
    """Ditto's λ = 0 is training alone: each client's model learns the client's colour."""
    plan = colours(
        tmp_path,
        adapter="full",
        algorithm={"name": "ditto", "strength": 0.0},
        local={"steps": 15, "batch": 8, "lr": 1e-2},
    )
    for _ in run(plan):
        pass
    folder, before = tmp_path / "run", snapshot(tmp_path / "run")
    result = CliRunner().invoke(app, ["evaluate", str(folder), "--personal", "--json"])
    assert result.exit_code == 0, result.output
    found, after = json.loads(result.stdout), snapshot(folder)
    assert json.loads(after.pop("personal.json")[1]) == found
    assert after == before
    own = {client: one["own_rows"] for client, one in found["clients"].items()}
    assert list(own.values()).count(None) == 1, "who has one row trains on it"
    assert any("too few rows" in note for note in found["notes"])
    assert all(one["test_rows"] is None for one in found["clients"].values())
    assert found["mean"]["test_rows"] is None
    job, usual = parts(folder, tmp_path / "other")
    corpus = read_data(plan)
    for client, pair in own.items():
        if pair:
            places = zip(job.validation.groups, job.validation.places, strict=True)
            examples = [corpus.train[place] for owner, place in places if owner == client]
            model = homes(folder, client, 1)["personal"]
            for name, tree in (("own_model", model), ("global_model", usual)):
                said = answers(job, tree, examples)
                both = [(text, e.answer) for text, e in zip(said, examples, strict=True)]
                assert pair[name]["rows"] == len(examples) == 4
                assert pair[name]["exact_match"] == np.mean([exact_match(*x) for x in both])
                assert pair[name]["token_f1"] == pytest.approx(
                    np.mean([token_f1(*x) for x in both])
                )
            assert pair["own_model"]["exact_match"] == 1
    means = found["mean"]["own_rows"]
    assert means["own_model"]["exact_match"] > means["global_model"]["exact_match"]
    shown = CliRunner().invoke(app, ["evaluate", str(folder), "--personal", "--limit", "1"])
    assert "ditto after round 1: own rows" in shown.stdout
    assert "EM own, own rows" in shown.stdout


def test_tuning_takes_a_step_from_what_was_received_at_the_plans_rate(tmp_path):
    """One step of plain SGD over all of a client's rows, after the last round of a falling schedule."""
    local = {"steps": 1, "batch": 64, "lr": 0.05, "optimizer": "sgd", "clip": None}
    plan = colours(
        tmp_path, local={**local, "schedule": "linear"}, evaluation={"max_new_tokens": 1}
    )
    finish(plan)
    result = personal(tmp_path / "run", tune=1, limit=2)
    assert (result["tune"], result["limit"], result["personal"]) == (1, 2, True)
    job, usual = parts(tmp_path / "run", tmp_path / "other")
    for client, found in result["clients"].items():
        job.adapted.write(usual)
        job.adapted.model.zero_grad()
        rows = job.trainer.examples[client]
        nats = [
            torch.nn.functional.cross_entropy(
                job.adapted.model(input_ids=torch.tensor(row.ids[None]).long()).logits[0, :-1],
                torch.tensor(np.where(row.learn[1:], row.ids[1:], -100)).long(),
                reduction="sum",
            )
            for row in rows
        ]
        (sum(nats) / sum(int(row.learn[1:].sum()) for row in rows)).backward()
        named = job.adapted.parameters
        tuned = {n: p.detach().clone() - 0.05 * p.grad for n, p in named.items()}
        if mine := held(job, client)[:2]:
            own = found["own_rows"]["own_model"]
            assert own["rows"] == 2
            assert own["loss"] == pytest.approx(loss(job, tuned, mine), rel=1e-4)
            assert own["loss"] < found["own_rows"]["global_model"]["loss"] - 1e-3


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_own_models_survive_a_kill(tmp_path):
    options = {"algorithm": "ditto", "partition": SPLIT, "federation": {"rounds": 2}}
    steps = in_child(tiny(tmp_path / "usual", **options), None, resume=False)
    usual = partial(homes, tmp_path / "usual", round=2)
    plan = tiny(tmp_path / "killed", **options)
    in_child(plan, 2 * steps // 3, resume=False)
    finish(plan, resume=True)
    for client in (f"client-{n:02d}" for n in range(4)):
        kept = homes(Path(plan.folder), client, 2)
        assert kept.keys() == usual(client).keys()
        assert all(same(kept[role], tree) for role, tree in usual(client).items())
    known = personal(tmp_path / "usual", limit=1)
    assert personal(Path(plan.folder), limit=1) == known
    assert sum(not one["is_global"] for one in known["clients"].values()) >= 2


@pytest.mark.parametrize("name", ["flora", "hetlora", "perfedavg"])
def test_unlike_ranks_shifted_bases_and_methods_that_tune_first_are_scored(name, tmp_path):
    ranks = {} if name == "perfedavg" else {"ranks": {"tiers": [1, 2]}}
    plan = tiny(
        tmp_path / "run",
        algorithm=name,
        adapter={"rank": 2, **ranks},
        partition=SPLIT,
        evaluation=SHORT,
        federation={"rounds": 1, "cohort": 4},
    )
    finish(plan)
    result = personal(tmp_path / "run", limit=1)
    state = saved_run(tmp_path / "run").state
    assert (BASE in state.public) == (name == "flora")
    alike = [one["is_global"] for one in result["clients"].values()]
    # FLoRA's fresh B is 0, so cutting A changes the tree; of HetLoRA those of rank 2 are the global one.
    assert alike.count(True) == {"flora": 2, "hetlora": 2, "perfedavg": 0}[name]
    for one in result["clients"].values():
        pair = one["own_rows"]
        assert math.isfinite(pair["own_model"]["loss"])
        if name == "flora":
            assert pair["own_model"]["loss"] == pytest.approx(pair["global_model"]["loss"])


def test_what_cannot_be_scored_is_refused(made, tmp_path):
    next(iter(run(tiny(tmp_path / "none"))))
    with pytest.raises(InputError, match=r"partition\.validation is 0.*partition\.validation=0\.1"):
        personal(tmp_path / "none")
    for words in (
        ["--tune", "3"],
        ["--personal", "--data", "x"],
        ["--personal", "--predictions", "x"],
    ):
        result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "none"), *words])
        assert isinstance(result.exception, InputError), words


def test_lost_homes_are_refused_and_not_taken_for_empty(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made("ditto"), folder, ignore=shutil.ignore_patterns("personal.json"))
    shutil.rmtree(folder / "homes")
    with pytest.raises(InputError, match="what clients keep is missing"):
        personal(folder)
    assert not (folder / "personal.json").exists()


def test_diverged_tuning_is_said(tmp_path):
    local = {"steps": 1, "lr": 1e-2, "optimizer": "sgd", "clip": None, "warmup": 0.5}
    plan = colours(tmp_path, local=local)
    finish(plan)
    text = (tmp_path / "run" / "plan.yaml").read_text()
    (tmp_path / "run" / "plan.yaml").write_text(text.replace("lr: 0.01", "lr: 1.0e+30"))
    with pytest.raises(FeditError, match="diverged"):
        personal(tmp_path / "run", tune=5)
