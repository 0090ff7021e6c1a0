"""Answers while they are made: the ones that are scored, sampled ones, and letters of many tokens."""

import time
from itertools import pairwise

import pytest
import torch

from fedit.chat.models import open_voices
from fedit.chat.reply import Reply
from fedit.core.examples import Turn
from fedit.evaluate.generate import generate

TALK = [
    Turn("user", "What is tea?", "Tea is a leaf."),
    Turn("assistant", "A leaf."),
    Turn("user", "And when is it drunk?"),
]


@pytest.fixture(scope="module")
def voice(study):
    [one] = open_voices(study)
    return one


@pytest.fixture(scope="module")
def endless(talkative):
    [one] = open_voices(talkative)
    return one


@pytest.mark.parametrize("turns", [TALK[:1], TALK[-1:], TALK], ids=["passage", "plain", "turns"])
def test_a_greedy_answer_is_the_one_that_is_scored(voice, turns):
    loaded = voice.mount.loaded
    [ids] = generate(
        loaded.adapted.model,
        [loaded.encoder.prompt_ids(turns)],
        max_new_tokens=20,
        stop_ids=loaded.encoder.stop_ids,
        pad_id=loaded.encoder.pad_id,
        batch_size=1,
        device="cpu",
    )
    reply = Reply(voice, turns, 20)
    grown = list(reply)
    assert grown[-1] == reply.text == loaded.encoder.decode(ids)
    assert reply.tokens == len(ids)
    assert reply.cut == (len(ids) == 20)
    for shorter, longer in pairwise(grown):
        assert longer.startswith(shorter)


def test_a_seed_draws_the_same_answer_again_and_no_other_randomness_is_used(voice):
    def drawn(seed: int) -> str:
        *_, last = Reply(voice, TALK, 20, temperature=1.5, seed=seed)
        return last

    state = torch.random.get_rng_state()
    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) > 1
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_answer_ends_where_it_is_stopped(endless):
    reply = Reply(endless, TALK[-1:], 1900)
    for _ in reply:
        if reply.tokens > 5:
            reply.stop()
    assert 5 < reply.tokens < 1900
    assert not reply.cut
    full = Reply(endless, TALK[-1:], reply.tokens)
    assert list(full)[-1] == reply.text
    assert full.cut


def test_who_leaves_an_answer_stops_it(endless):
    reply = Reply(endless, TALK[-1:], 1900)
    for _ in reply:
        break
    began = time.monotonic()
    list(Reply(endless, TALK[-1:], 2))  # the model is free again
    assert time.monotonic() - began < 1


def test_letters_of_several_tokens_appear_whole(voice, script):
    text = "naïve 🦊 café — 東京! \U0001f469‍\U0001f52c"
    script(text)
    grown = list(Reply(voice, TALK, 200))
    assert grown[-1] == text
    assert not any("\ufffd" in part for part in grown)
    script("a real \ufffd stays")
    assert list(Reply(voice, TALK, 200))[-1] == "a real \ufffd stays"


def test_what_goes_wrong_while_an_answer_is_made_is_raised(voice, monkeypatch):
    def broken(self, adapter):
        raise MemoryError("no room")

    monkeypatch.setattr(type(voice.mount), "wearing", broken)
    with pytest.raises(MemoryError, match="no room"):
        list(Reply(voice, TALK, 5))
