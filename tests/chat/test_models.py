"""Several models on one base in memory, each the same as it is alone."""

import json

import pytest
import torch

from fedit import run as federate
from fedit.build import make_base
from fedit.chat.models import open_voices
from fedit.chat.reply import Reply
from fedit.core.errors import InputError
from fedit.core.examples import Turn
from fedit.evaluate.generate import generate
from fedit.score import load_run
from fedit.train.model import fingerprint
from tests.chat.conftest import quick
from tests.tiny import CONFIG
from tests.zoo import logits

ASKED = [Turn("user", "Go on: one, two,")]
NEW = 12

# peft and transformers about each other
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported"),
]


def scored(model, encoder) -> str:
    """What `fedit evaluate` would score."""
    [ids] = generate(
        model,
        [encoder.prompt_ids(ASKED)],
        max_new_tokens=NEW,
        stop_ids=encoder.stop_ids,
        pad_id=encoder.pad_id,
        batch_size=1,
        device="cpu",
    )
    return encoder.decode(ids)


def said(voice) -> str:
    *_, last = Reply(voice, ASKED, NEW)
    return last


def alone(path) -> str:
    loaded = load_run(path)
    return scored(loaded.adapted.model, loaded.encoder)


def make(folder, **changes):
    for _ in federate(quick(folder, **changes)):
        pass
    return folder


def test_runs_of_a_study_and_the_base_take_turns_on_one_base(study):
    told: list[str] = []
    voices = open_voices(study, ["base", "local:12", "central"], told.append)
    assert [voice.name for voice in voices] == ["fedit", "base", "local:client-12", "central"]
    assert told == []
    [mount] = {id(voice.mount): voice.mount for voice in voices}.values()
    adapted = mount.loaded.adapted
    before = fingerprint(adapted.model, adapted.parameters.values())
    seed = study / "seed-0"
    base, encoder = make_base(mount.loaded.plan)
    expected = [
        alone(seed / "fedit"),
        scored(base.model, encoder),
        alone(seed / "local" / "client-12"),
        alone(seed / "central"),
    ]
    assert len(set(expected)) == 4
    assert [said(voice) for voice in voices] == expected
    assert [said(voice) for voice in reversed(voices)] == expected[::-1]
    assert fingerprint(adapted.model, adapted.parameters.values()) == before


@pytest.mark.parametrize(
    "adapter",
    [
        {"kind": "lora", "rank": 2, "dora": True},
        {"kind": "ia3", "targets": ["k_proj", "down_proj"], "feedforward": ["down_proj"]},
        {"kind": "prefix", "tokens": 3},
        {"kind": "prompt", "tokens": 3},
        {"kind": "full"},
    ],
    ids=lambda adapter: adapter["kind"],
)
def test_every_kind_of_adapter_can_be_taken_off(adapter, tmp_path):
    run = make(tmp_path / "run", adapter=adapter, local={"steps": 4, "lr": 0.1})
    told: list[str] = []
    tuned, bare = open_voices(run, ["base"], told.append)
    base, encoder = make_base(tuned.mount.loaded.plan)
    assert said(tuned) == alone(run)
    assert said(bare) == scored(base.model, encoder)
    assert said(tuned) == alone(run)
    assert said(tuned) != said(bare)
    assert len(told) == (adapter["kind"] == "full")


@pytest.mark.parametrize("order", [["fedex", "flora", "plain"], ["plain", "flora", "fedex"]])
def test_what_runs_added_to_the_base_comes_and_goes_with_them(order, tmp_path):
    """FedEx-LoRA and FLoRA change base weights; no other voice may hear of it, whichever is first."""
    methods = {"fedex": "fedex_lora", "flora": "flora", "plain": "fedavg"}
    places = [
        make(tmp_path / name, algorithm=methods[name], seed=number)  # cohorts of their own
        for number, name in enumerate(order)
    ]
    told: list[str] = []
    voices = open_voices(places[0], [*map(str, places[1:]), "base"], told.append)
    assert told == []
    assert len({id(voice.mount) for voice in voices}) == 1
    base, _ = make_base(voices[0].mount.loaded.plan)
    models = [load_run(place).adapted.model.eval() for place in places] + [base.model.eval()]
    expected = [logits(model) for model in models]
    for i, one in enumerate(expected):
        assert all(float((one - other).abs().max()) > 1e-3 for other in expected[:i])
    for turn in (slice(None), slice(None, None, -1), slice(None)):
        for voice, wanted in zip(voices[turn], expected[turn], strict=True):
            with voice.mount.wearing(voice.public) as model:
                torch.testing.assert_close(logits(model), wanted, rtol=1e-5, atol=1e-6)


def test_a_run_that_added_to_the_base_is_known_as_over_the_same_base(tmp_path, monkeypatch):
    """With another adapter, where weights are compared, and from another device, where they are hashed."""
    first = make(tmp_path / "first", algorithm="fedex_lora")
    other = make(tmp_path / "other", algorithm="flora", adapter={"rank": 3})
    voices = open_voices(first, [str(other)])
    assert [said(voice) for voice in voices] == [alone(first), alone(other)]
    place = first / "environment.json"
    known = json.loads(place.read_text())
    place.write_text(json.dumps({**known, "device": "elsewhere", "base": "0" * 64}))
    assert len(open_voices(first, [str(make(tmp_path / "here", algorithm="flora"))])) == 2


def test_another_adapter_loads_its_base_anew_and_says_so(study, tmp_path):
    other = make(tmp_path / "other", adapter={"rank": 3})
    told: list[str] = []
    voices = open_voices(study, [str(other)], told.append)
    assert voices[0].mount is not voices[1].mount
    assert told == [f"{other}: its adapter section is another, so its base is loaded anew"]
    assert [said(voice) for voice in voices] == [alone(study / "seed-0" / "fedit"), alone(other)]


def test_another_base_is_refused(study, tmp_path):
    config = {**CONFIG, "initializer_range": 0.2}
    other = make(tmp_path / "other", model={"config": config})
    with pytest.raises(InputError, match="trained on another base"):
        open_voices(study, [str(other)])


def test_a_folder_that_claims_another_base_is_refused(study, tmp_path):
    """The plans are equal but the weights were not: a base that changed between two runs."""
    other = make(tmp_path / "other")
    place = other / "environment.json"
    open_voices(study, [str(other)])
    environment = json.loads(place.read_text())
    place.write_text(json.dumps({**environment, "base": "0" * 64}))
    with pytest.raises(InputError, match="trained on another base"):
        open_voices(study, [str(other)])


def test_what_cannot_be_used_is_refused_before_anything_is_loaded(study, tmp_path, monkeypatch):
    monkeypatch.setattr("fedit.chat.models.load_run", lambda path: pytest.fail("loaded"))
    for names, why in (
        (["central", "base", "central"], "central: is there twice"),
        (["fedit"], "fedit: is there twice"),
        (["nobody"], "nobody: neither a model beside"),
    ):
        with pytest.raises(InputError, match=why):
            open_voices(study, names)
