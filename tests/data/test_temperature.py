"""Temperature sampling: q_l ∝ p_l^(1/t), from the formula to the rows of a run."""

import json

import numpy as np
import pytest

from fedit import estimate
from fedit.build import build
from fedit.build.hosting import Hosting
from fedit.core.errors import InputError
from fedit.data.temperature import tempered
from tests.test_config import refusal
from tests.tiny import finish, journal, tiny

LABELS = ["en"] * 12 + ["es"] * 3 + ["eu"]


@pytest.mark.parametrize("t", [0.5, 1.0, 1.7, 5.0, 100.0])
def test_shares_of_labels_are_what_the_formula_says(t):
    odds = tempered(LABELS, t)
    p = np.array([12, 3, 1]) / 16
    q = p ** (1 / t) / (p ** (1 / t)).sum()
    found = [odds[[label == name for label in LABELS]].sum() for name in ("en", "es", "eu")]
    np.testing.assert_allclose(found, q, rtol=1e-14)
    np.testing.assert_allclose(odds[:12], odds[0], rtol=0)
    np.testing.assert_allclose(odds.sum(), 1, rtol=1e-14)


def test_at_one_all_rows_are_alike_and_far_beyond_it_all_labels():
    np.testing.assert_allclose(tempered(LABELS, 1.0), 1 / 16, rtol=1e-14)
    np.testing.assert_allclose(
        tempered(LABELS, 1e9)[[0, 12, 15]], [1 / 36, 1 / 9, 1 / 3], rtol=1e-8
    )


def test_the_smallest_t_leaves_the_most_frequent_label_alone():
    odds = tempered(LABELS, 1e-9)
    np.testing.assert_allclose(odds, [1 / 12] * 12 + [0] * 4, atol=0)


def test_the_order_of_the_rows_changes_nothing():
    order = np.random.default_rng(0).permutation(len(LABELS))
    mixed = tempered([LABELS[i] for i in order], 3.0)
    np.testing.assert_allclose(mixed, tempered(LABELS, 3.0)[order], rtol=1e-14)


def rows_in(path, counts):
    """Instructions of three tokens or more; the answer is the label."""
    lines = [
        {"instruction": f"say {label} {i}", "response": label * 3, "language": label}
        for label, count in counts.items()
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {"train": str(path), "holdout": None, "limit": None}


def plan_of(tmp_path, name="run", **temperature):
    data = rows_in(tmp_path / "rows.jsonl", {"aa": 30, "bb": 7})
    if temperature:
        data["temperature"] = temperature
    local = {"steps": None, "epochs": 2, "batch": 4}
    return tiny(tmp_path / name, data=data, local=local, partition={"clients": 2})


def test_each_client_has_odds_of_its_own_labels(tmp_path):
    plan = plan_of(tmp_path, by="language", t=3.0)
    job = build(plan, tmp_path / "job")
    seen = set()
    for client, rows in job.trainer.examples.items():
        answers = [bytes(row.ids[row.learn]) for row in rows]
        np.testing.assert_allclose(job.trainer.odds[client], tempered(answers, 3.0), rtol=1e-14)
        seen.add(tuple(np.unique(answers, return_counts=True)[1]))
    assert len(seen) == 2, "the two hold unlike shares"
    assert all(len(counts) == 2 for counts in seen)


def test_at_one_a_run_ends_with_the_same_bytes_and_otherwise_it_does_not(tmp_path):
    without = finish(plan_of(tmp_path, "without"))
    assert finish(plan_of(tmp_path, "one", by="language", t=1)) == without
    tempered_run = finish(plan_of(tmp_path, "five", by="language", t=5))
    assert tempered_run != without
    assert finish(plan_of(tmp_path, "again", by="language", t=5)) == tempered_run
    lengths = [
        [
            {c: (m["steps"], m["samples"]) for c, m in r["clients"].items()}
            for r in journal(path)[1:]
        ]
        for path in (tmp_path / "without", tmp_path / "five")
    ]
    assert lengths[0] == lengths[1]


def test_a_worker_has_the_same_odds(tmp_path, monkeypatch):
    """What goes to a worker makes, there, a trainer of its own."""
    made, trainer = [], Hosting.trainer

    def spied(self, *parts):
        made.append((self, trainer(self, *parts)))
        return made[-1][1]

    monkeypatch.setattr(Hosting, "trainer", spied)
    build(plan_of(tmp_path, by="language", t=5), tmp_path / "job")
    made[0][0]()
    (_, here), (_, there) = made
    assert here is not there
    assert here.odds.keys() == there.odds.keys() == here.examples.keys()
    assert all(np.array_equal(odds, there.odds[client]) for client, odds in here.odds.items())


def test_an_estimate_expects_the_drawn_rows(tmp_path):
    """Rows of the rarer label are far longer, so that odds show in tokens."""
    lines = [
        {"instruction": "say", "response": "a" * (4 if i % 6 else 60), "long": str(i % 6 == 0)}
        for i in range(48)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    tokens = []
    for t in (1, 1e6):
        data = {"train": str(path), "holdout": None, "limit": None, "duplicates": "keep"}
        plan = tiny(
            tmp_path / f"{t}",
            data=data | {"temperature": {"by": "long", "t": t}},
            partition={"clients": 1},
            federation={"cohort": 1},
        )
        job = build(plan, tmp_path / f"job-{t}")
        [rows] = job.trainer.examples.values()
        lengths = np.array([len(row.ids) for row in rows], dtype=np.float64)
        odds = np.full(48, 1 / 48) if t == 1 else np.where(lengths > lengths.min(), 1 / 16, 1 / 80)
        found = estimate(plan, calibrated=False).to_dict()["tokens"]["round"]
        np.testing.assert_allclose(found, 2 * 4 * float(odds @ lengths), rtol=1e-5)
        tokens.append(found)
    assert tokens[1] > 1.3 * tokens[0]


def test_an_unknown_column_is_refused_by_name_before_the_model_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("fedit.build.job.make_base", None)
    for t in (1, 5):
        with pytest.raises(InputError) as caught:
            build(plan_of(tmp_path, by="langage", t=t), tmp_path / "job")
        message = str(caught.value)
        assert message.startswith("data.temperature.by: column 'langage': ")
        assert "did you mean 'language'?" in message


def test_a_t_that_is_not_above_zero_is_refused():
    data = {"train": "microworld", "temperature": {"by": "language", "t": 0}}
    assert "data.temperature.t" in refusal(data=data)
