"""Tokens held flat: the same examples come out, from memory and from a file; a damaged file is not used."""

import json
import struct
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedit.config import Template
from fedit.core.examples import Example, Turn
from fedit.train import kept
from fedit.train.encoded import Encoded, EncodedSet, Unlearnable
from fedit.train.kept import encoded_in, key_of
from fedit.train.prompts import Encoder
from fedit.train.templates import PLAIN
from tests.tokenizers import byte_level, sentencepiece


@st.composite
def outcomes(draw):
    """What encoding may give: rows of any length from one token on, and refusals between them."""
    if draw(st.integers(0, 4)) == 0:
        return Unlearnable(draw(st.text(max_size=5)), draw(st.text(max_size=5)))
    length = draw(st.integers(1, 9))
    return Encoded(
        draw(arrays.arrays(np.int32, length)),
        draw(arrays.arrays(np.bool_, length)),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, length - 1)),
    )


def same(one: Encoded, other: Encoded) -> bool:
    return (
        np.array_equal(one.ids, other.ids)
        and np.array_equal(one.learn, other.learn)
        and (one.ids.dtype, one.learn.dtype) == (other.ids.dtype, other.learn.dtype)
        and (one.prompt_cut, one.answer_cut) == (other.prompt_cut, other.answer_cut)
        and one.middle == other.middle
    )


@settings(deadline=None)
@given(given=st.lists(outcomes(), max_size=12))
def test_what_goes_in_comes_out_of_memory_and_of_a_file(given, tmp_path_factory):
    made = EncodedSet.of(iter(given))
    path = tmp_path_factory.mktemp("tokens") / "folder" / "rows.safetensors"
    made.save(path, "key")
    opened = EncodedSet.open(path, "key")
    assert opened is not None
    assert list(path.parent.iterdir()) == [path]
    rows = [i for i, one in enumerate(given) if isinstance(one, Encoded)]
    for found in (made, opened):
        assert found.rows.tolist() == rows
        assert found.unlearnable == [one for one in given if isinstance(one, Unlearnable)]
        assert len(found.encoded) == len(rows)
        assert all(same(one, given[row]) for one, row in zip(found.encoded, rows, strict=True))
        assert found.supervised.tolist() == [int(given[row].learn[1:].sum()) for row in rows]
        assert found.prompts_cut == sum(given[row].prompt_cut for row in rows)
        assert found.answers_cut == sum(given[row].answer_cut for row in rows)


ROWS = EncodedSet.of(
    [Encoded(np.arange(n, dtype=np.int32), np.arange(n) > 1) for n in (3, 5, 2, 9)]
)


def test_a_view_is_a_sequence_of_the_chosen_places():
    view = ROWS.select(np.array([3, 0, 3]))
    assert [len(one.ids) for one in view] == [9, 3, 9]
    assert len(view[-1].ids) == 9
    assert [len(one.ids) for one in view[1:]] == [3, 9]
    with pytest.raises(IndexError):
        view[3]
    assert not ROWS.select(np.arange(0))


def test_views_share_the_memory_of_the_set():
    view = ROWS.select(np.array([1, 2]))
    assert all(np.shares_memory(one.ids, ROWS.tokens.ids) for one in view)
    assert all(np.shares_memory(one.learn, ROWS.tokens.learn) for one in view)


def test_an_opened_set_cannot_be_written_to(tmp_path):
    ROWS.save(tmp_path / "rows")
    opened = EncodedSet.open(tmp_path / "rows")
    with pytest.raises(ValueError, match="read-only"):
        opened.encoded[0].ids[0] = 7


def header(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return content, json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path, known, tensors):
    text = json.dumps(known).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_token(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_refusals(path):
    _, known, tensors = header(path)
    known["__metadata__"]["unlearnable"] = '[["f:1", "no reason"]]'
    with_header(path, known, tensors)


def without_lengths(path):
    _, known, tensors = header(path)
    known["more"] = known.pop("offsets")
    with_header(path, known, tensors)


def no_words(path):
    _, known, tensors = header(path)
    del known["__metadata__"]
    with_header(path, known, tensors)


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        flip_a_token,
        other_refusals,
        without_lengths,
        no_words,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"{}" * 99),
        lambda path: path.unlink(),
    ],
    ids=["short", "flipped", "refusals", "lengths", "no words", "empty", "foreign", "missing"],
)
def test_a_damaged_file_is_not_opened(damage, tmp_path):
    path = tmp_path / "rows"
    ROWS.save(path)
    assert EncodedSet.open(path) is not None
    damage(path)
    assert EncodedSet.open(path) is None


# ---- made once


EXAMPLES = [
    Example((Turn("user", f"Say {i}"), Turn("assistant", f"It is {i}")), where=f"f:{i}")
    for i in range(20)
]
TEMPLATE = Template(name="plain", max_length=64)


def test_tokens_are_made_once_and_again_when_their_file_is_damaged(tmp_path, monkeypatch):
    tokenizer, path = byte_level(), tmp_path / "rows"
    encoder, calls = Encoder(tokenizer, PLAIN, 64), []
    real = Encoder.encode_all
    monkeypatch.setattr(
        Encoder, "encode_all", lambda self, rows: calls.append(len(rows)) or real(self, rows)
    )

    def tokens():
        return encoded_in(path, EXAMPLES, encoder, tokenizer, TEMPLATE)

    def right(found):
        return all(same(*both) for both in zip(found.encoded, plain.encoded, strict=True))

    plain = encoder.encode_all(EXAMPLES)
    calls.clear()
    assert right(tokens())
    assert right(tokens())
    assert calls == [20]
    flip_a_token(path)
    assert right(tokens())
    assert calls == [20, 20]


def test_the_key_changes_with_all_that_tokens_depend_on(monkeypatch):
    def key(examples=EXAMPLES, tokenizer=None, **template):
        settings = {**TEMPLATE.model_dump(), **template}
        return key_of(examples, tokenizer or byte_level(), Template(**settings))

    chatty, ending = deepcopy(byte_level()), deepcopy(byte_level())  # it is made once
    chatty.chat_template = "{{ messages }}"
    ending.eos_token = "<other>"
    keys = [
        key(),
        key(EXAMPLES[1:]),
        key([*EXAMPLES[:-1], EXAMPLES[0]]),
        key(tokenizer=sentencepiece()),
        key(tokenizer=chatty),
        key(tokenizer=ending),
        key(max_length=65),
        key(train_on_inputs=True),
        key(name="own", prompt="{instruction}"),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    monkeypatch.setattr(kept, "version", lambda name: "0")
    assert key() not in keys


def test_a_tokenizer_that_cannot_be_read_is_never_taken_for_the_same(tmp_path, monkeypatch):
    tokenizer, path = byte_level(), tmp_path / "rows"
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    assert key_of(EXAMPLES, tokenizer, TEMPLATE) is None
    encoder, calls = Encoder(tokenizer, PLAIN, 64), []
    real = encoder.encode_all
    encoder.encode_all = lambda rows: calls.append(1) or real(rows)
    for _ in range(2):
        assert len(encoded_in(path, EXAMPLES, encoder, tokenizer, TEMPLATE).encoded) == 20
    assert calls == [1, 1]
