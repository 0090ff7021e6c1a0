"""Whole runs in which what travels is in a short form, and what the plan says of it."""

from itertools import islice
from pathlib import Path

import pytest

import fedit
from fedit.algorithms.fedprox import fedprox
from fedit.config import Whole
from fedit.core.errors import InputError
from fedit.files import write_atomically
from fedit.personal import personal
from tests.tiny import adapter_bytes, finish, journal, tiny

SGD = {"optimizer": "sgd", "momentum": 0.0, "clip": None}
BOTH = {"up": {"kind": "topk", "share": 0.1}, "down": {"kind": "int4", "group": 32}}


def traffic(folder: Path, way: str) -> list[float]:
    """Bytes of each round."""
    return [record[f"bytes_{way}"] for record in journal(folder)[1:]]


def homes(folder: Path) -> dict[str, bytes]:
    files = (folder / "homes").glob("*/*.home")
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> Path:
    """A finished run in this process."""
    folder = tmp_path_factory.mktemp("usual") / "run"
    finish(tiny(folder, compression=BOTH, algorithm="fedprox"))
    return folder


@pytest.mark.parametrize(
    "engine", ["loopback", "workers", pytest.param("ray", marks=pytest.mark.cluster)]
)
def test_every_engine_gives_the_same_bytes(engine, usual, tmp_path):
    how = {"loopback": {}, "workers": {"processes": 2}, "ray": {"actors": 1}}[engine]
    plan = tiny(
        tmp_path / "run", compression=BOTH, algorithm="fedprox", engine={"kind": engine, **how}
    )
    assert finish(plan) == adapter_bytes(usual)
    assert traffic(tmp_path / "run", "down") == traffic(usual, "down")
    up = traffic(usual, "up")  # seconds have more or fewer digits
    assert traffic(tmp_path / "run", "up") == pytest.approx(up, abs=32)
    assert homes(tmp_path / "run") == homes(usual) != {}


def test_stopped_and_resumed_is_never_stopped(usual, tmp_path):
    plan = tiny(tmp_path / "run", compression=BOTH, algorithm="fedprox")
    list(islice(fedit.run(plan), 3))
    assert finish(plan, resume=True) == adapter_bytes(usual)
    assert homes(tmp_path / "run") == homes(usual)


def test_a_damaged_memory_is_refused_as_any_home_is(tmp_path):
    plan = tiny(tmp_path / "run", compression=BOTH)
    list(islice(fedit.run(plan), 2))
    [path] = (tmp_path / "run" / "homes").glob(f"{journal(tmp_path / 'run')[1]['cohort'][0]}/*")
    write_atomically(path, path.read_bytes()[:-1])
    with pytest.raises(InputError, match="what clients keep is missing or damaged"):
        finish(plan, resume=True)


@pytest.mark.parametrize(
    ("compression", "up", "down"),
    [
        ({"up": "bf16", "down": "bf16"}, 2, 2),
        ({"up": "int8", "down": "int8"}, 4 / (1 + 2 / 64), 4 / (1 + 2 / 64)),
        ({"up": "int4", "down": "int4"}, 4 / (0.5 + 2 / 64), 4 / (0.5 + 2 / 64)),
        ({"up": {"kind": "topk", "share": 0.1}, "down": None}, 10, 1),
    ],
    ids=["bf16", "int8", "int4", "topk"],
)
def test_an_estimate_counts_the_bytes_of_the_short_form(compression, up, down, tmp_path):
    wide = {"adapter": {"rank": 64}}  # so that names weigh little
    plain = fedit.estimate(tiny(tmp_path, **wide), calibrated=False).to_dict()
    plan = tiny(tmp_path / "run", compression=compression, algorithm="scaffold", **wide, local=SGD)
    found = fedit.estimate(plan, calibrated=False).to_dict()
    finish(plan)
    sent = sum(traffic(tmp_path / "run", "up"))
    assert found["bytes"]["up"]["run"] == pytest.approx(sent, abs=16 * 6)
    assert found["bytes"]["down"]["run"] == sum(traffic(tmp_path / "run", "down"))
    for way, times in (("up", up), ("down", down)):  # SCAFFOLD's control is in the same form
        ratio = 2 * plain["bytes"][way]["run"] / found["bytes"][way]["run"]
        assert ratio == pytest.approx(times, rel=0.1)


def test_full_weights_are_counted_as_they_are(tmp_path):
    found, plain = (
        fedit.estimate(tiny(tmp_path, compression=how), calibrated=False).to_dict()
        for how in (BOTH, {})
    )
    assert found["full"]["down"] == plain["full"]["down"]
    assert found["full"]["up"] == plain["full"]["up"]
    assert found["full"]["ratio"] > 3 * plain["full"]["ratio"]
    assert found["memory"]["homes"] > plain["memory"]["homes"] == 0


def test_an_estimate_is_timed_with_what_packing_takes(tmp_path):
    found = fedit.estimate(tiny(tmp_path, compression=BOTH)).to_dict()
    assert found["seconds"]["total"] > 0


def test_an_algorithm_handed_over_in_python_is_compressed_as_well(tmp_path):
    plan = tiny(tmp_path / "run", compression=BOTH, algorithm="fedprox")
    for _ in fedit.run(plan, algorithm=fedprox(0.01)):
        pass
    other = tiny(tmp_path / "other", compression=BOTH, algorithm="fedprox")
    assert adapter_bytes(tmp_path / "run") == finish(other)


def test_own_models_are_not_told_apart_by_the_short_form(tmp_path):
    plan = tiny(
        tmp_path / "run",
        compression={"down": "int4"},
        partition={"clients": 4, "validation": 0.2},
    )
    finish(plan)
    found = personal(tmp_path / "run", limit=1)
    assert not found["personal"]


def test_a_word_is_enough_and_a_group_means_int8(tmp_path):
    plan = tiny(tmp_path, compression={"up": "int4", "down": {"group": 16}})
    assert plan.compression.up == Whole(kind="int4")
    assert plan.compression.down == Whole(kind="int8", group=16)
    assert tiny(tmp_path).compression.up is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compression": {"up": "zip"}}, r"compression\.up"),
        ({"compression": {"up": {"kind": "topk", "share": 0}}}, r"compression\.up\S*share"),
        ({"compression": {"down": {"kind": "int4", "group": 0}}}, r"compression\.down\S*group"),
        ({"compression": {"sideways": "int8"}}, "sideways"),
        (
            {
                "compression": {"down": "int8"},
                "adapter": {"ranks": {"tiers": [1, 2]}},
                "algorithm": "hetlora",
            },
            r"compression\.down .*adapter\.ranks.*drop one",
        ),
        (
            {"compression": {"up": "topk"}, "algorithm": "flora"},
            r"compression\.up topk .*flora.*use kind",
        ),
        (
            {"compression": {"down": "topk"}, "algorithm": "flexlora"},
            r"compression\.down topk .*flexlora.*use kind",
        ),
        (
            {"compression": {"down": "topk"}, "algorithm": "fedex_lora"},
            r"compression\.down topk .*fedex_lora.*use kind",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes, said, tmp_path):
    with pytest.raises(InputError, match=said):
        tiny(tmp_path, **changes)


def test_a_run_is_not_resumed_in_another_form(tmp_path):
    list(islice(fedit.run(tiny(tmp_path / "run", compression=BOTH)), 2))
    other = {**BOTH, "up": {"kind": "topk", "share": 0.2}}
    with pytest.raises(InputError, match=r"compression\.up\.share"):
        finish(tiny(tmp_path / "run", compression=other), resume=True)
