"""Tokens and masks, on every family of tokenizers and for every template."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from fedit.core.errors import InputError
from fedit.core.examples import Example, Turn
from fedit.train.chat_template import Chat
from fedit.train.encoded import apart
from fedit.train.prompts import Encoder, Unlearnable, check_tokenizer
from fedit.train.templates import ALPACA, PLAIN, VICUNA, Custom
from tests.tokenizers import CORPUS, FAMILIES, byte_level, chatml, sentencepiece, wordpiece

TEMPLATES = {
    "alpaca": ALPACA,
    "vicuna": VICUNA,
    "plain": PLAIN,
    "own": Custom("Q: {instruction}\n{context}\nA:", answer=" {response}\n"),
}
PAIRS = [(family, name) for family in FAMILIES for name in TEMPLATES] + [("chatml", "chat")]
SPECIALS = ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "</s>", "<s>", "[SEP]", "[CLS]", "<unk>"]
words = st.text("abc xyz\n.,:09é", min_size=1).filter(str.strip)
anything = st.text(min_size=1).filter(lambda text: text.strip() and "\ufdd0" not in text)


def encoder(family, name, max_length=4096, **options):
    tokenizer = FAMILIES[family]()
    template = Chat(tokenizer) if name == "chat" else TEMPLATES[name]
    return Encoder(tokenizer, template, max_length, **options)


def talk(*texts, context=""):
    roles = ("user", "assistant")
    return tuple(Turn(roles[i % 2], text, "" if i % 2 else context) for i, text in enumerate(texts))


def runs(mask):
    """The stretches of True in a mask, as (start, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(int)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def squeezed(text):
    return "".join(text.split()).lower()


@pytest.mark.parametrize(("family", "name"), [("byte-level", "alpaca"), ("chatml", "chat")])
@pytest.mark.parametrize("max_length", [4096, 48, 24])
def test_a_pair_has_one_prompt_and_learns_the_last_answers(family, name, max_length):
    """However the prompt is cut: likelihoods of answers to unlike prompts could not be compared."""
    code = encoder(family, name, max_length)
    turns = talk("say " * 30, "it is four", "again", "it is five, as it was before that")
    encoded = code.encode(Example(turns, rejected="no"))
    chosen, rejected = apart([encoded])
    assert (encoded.middle, len(encoded.ids)) == (
        len(chosen.ids),
        len(chosen.ids) + len(rejected.ids),
    )
    [(begin, end)], [(other, last)] = runs(chosen.learn), runs(rejected.learn)
    assert begin == other
    assert chosen.ids[:begin].tolist() == rejected.ids[:other].tolist()
    assert (end, last) == (len(chosen.ids), len(rejected.ids))
    assert code.decode(rejected.ids[other:]) == "no"
    assert turns[-1].text.startswith(code.decode(chosen.ids[begin:]))
    assert len(chosen.ids) <= max_length
    whole = encoder(family, name).encode(Example(turns))
    if max_length == 4096:
        assert chosen.ids.tolist() == whole.ids.tolist()
        assert len(runs(whole.learn)) == 2, "of a single conversation both answers are learned"
    else:
        assert encoded.prompt_cut


def test_a_pair_that_cutting_makes_equal_has_nothing_to_learn():
    code = encoder("byte-level", "plain", 32)
    pair = Example(talk("x", "paper " * 40), where="f:1", rejected="paper " * 41)
    refused = code.encode(pair)
    assert isinstance(refused, Unlearnable)
    assert "same tokens within template.max_length" in refused.reason


@pytest.mark.parametrize(("family", "name"), PAIRS)
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(words, min_size=2, max_size=6).map(lambda t: t[: len(t) // 2 * 2]))
def test_the_mask_covers_every_answer_and_nothing_else(family, name, texts):
    code = encoder(family, name)
    encoded = code.encode(Example(talk(*texts, context="it rained")))
    assert encoded.ids.dtype == np.int32
    assert encoded.learn.shape == encoded.ids.shape
    stretches = runs(encoded.learn)
    assert len(stretches) == len(texts) // 2
    for (start, stop), answer in zip(stretches, texts[1::2], strict=True):
        assert encoded.ids[stop - 1] in code.stop_ids
        got, expected = squeezed(code.decode(encoded.ids[start:stop])), squeezed(answer)
        if family == "wordpiece":  # accents go, as in BERT
            expected = expected.replace("é", "e")
        if family == "sentencepiece":  # and what it never saw is no token of it
            expected = expected.replace("é", "")
        assert got == expected


@pytest.mark.parametrize(("family", "name"), PAIRS)
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(anything | st.sampled_from(["\n\nx", " x", "  "]), min_size=3, max_size=3))
def test_the_prompt_is_where_training_begins(family, name, texts):
    code = encoder(family, name)
    turns = talk(*texts, "fine", context=texts[0])
    whole = code.encode(Example(turns))
    first, last = code.prompt_ids(turns[:1]), code.prompt_ids(turns[:3])
    assert first == whole.ids[: len(first)].tolist()
    assert not whole.learn[: len(first)].any()
    assert whole.learn[len(first)]
    assert last == whole.ids[: len(last)].tolist()
    assert whole.learn[len(last) :].all()


@pytest.mark.parametrize("name", [*TEMPLATES, "chat"])
@settings(max_examples=40, deadline=None)
@given(question=anything, answer=anything)
def test_what_is_learned_decodes_to_the_answer(name, question, answer):
    code = encoder("chatml", name)
    encoded = code.encode(Example(talk(question, answer)))
    learned = encoded.ids[encoded.learn]
    assert learned[-1] in code.stop_ids
    text = chatml().decode(learned[:-1])
    assert text.strip() == answer.strip()


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_ids_are_those_of_the_text_where_nothing_melts(family, name):
    """The pieces put together are what the tokenizer makes of the whole text at once."""
    code = encoder(family, name)
    tokenizer, template = FAMILIES[family](), code._template
    turns = talk("what is 2 + 2?", "it is 4", context="a map")
    text = "".join(s.text for s in template.segments(turns, code._eos))
    prefix = tokenizer("a")["input_ids"][: 1 if family in ("sentencepiece", "wordpiece") else 0]
    expected = prefix + tokenizer(text, add_special_tokens=False)["input_ids"]
    got = code.encode(Example(turns)).ids.tolist()
    if name == "plain":  # its prompt ends in "\n\n", which byte-level BPE parts before a word
        assert tokenizer.decode(got) == tokenizer.decode(expected)
    else:
        assert got == expected


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_special_tokens_in_the_data_are_text(family, name):
    code, special_ids = encoder(family, name), set(FAMILIES[family]().all_special_ids)
    clean = code.encode(Example(talk("say it", "so be it", context="that")))
    for special in SPECIALS:
        answer = f"so {special}{special} be it"
        turns = talk(f"say {special} it", answer, context=f"{special} that")
        dirty = code.encode(Example(turns))
        assert [t for t in dirty.ids if t in special_ids] == [
            t for t in clean.ids if t in special_ids
        ]
        assert len(runs(dirty.learn)) == 1
        assert squeezed(code.decode(dirty.ids[dirty.learn])) == squeezed(answer)


def test_a_parted_name_gets_no_space_inside():
    code = encoder("sentencepiece", "plain")
    encoded = code.encode(Example(talk("say it", "so</s>be it")))
    assert code.decode(encoded.ids[encoded.learn]) == "so</s>be it"


def test_names_inside_names_are_text_too():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(byte_level().backend_tokenizer.to_str()),
        eos_token="<|endoftext|>",
        additional_special_tokens=["<<s>>", "<s>", "|>"],
    )
    code = Encoder(tokenizer, PLAIN, 512)
    encoded = code.encode(Example(talk("x", "a <<s>> <|endoftext|> b")))
    assert [t for t in encoded.ids if t in tokenizer.all_special_ids] == [tokenizer.eos_token_id]
    assert code.decode(encoded.ids[encoded.learn]) == "a <<s>> <|endoftext|> b"


def test_the_templates_own_markers_stay_special():
    own = Custom("<|im_start|>{instruction}<|im_start|>", answer="{response}")
    ids = Encoder(chatml(), own, 64).encode(Example(talk("<|im_start|>", "b"))).ids.tolist()
    assert ids.count(chatml().convert_tokens_to_ids("<|im_start|>")) == 2


def test_half_a_surrogate_is_no_crash():
    encoded = encoder("byte-level", "plain").encode(Example(talk("a", "b \ud83d c")))
    assert byte_level().decode(encoded.ids[encoded.learn][:-1]) == "b ? c"


def test_eos_is_learned_when_it_is_the_padding_too():
    code = encoder("byte-level, pad = eos", "alpaca")
    assert (code.pad_id,) == code.stop_ids
    encoded = code.encode(Example(talk("a", "b")))
    assert encoded.ids[-1] == code.pad_id
    assert encoded.learn[-1]


@pytest.mark.parametrize(
    ("family", "name", "prefix"),
    [("sentencepiece", "alpaca", "<s>"), ("wordpiece", "vicuna", "[CLS]")],
)
def test_the_tokenizers_prefix_comes_first_and_once(family, name, prefix):
    encoded = encoder(family, name, train_on_inputs=True).encode(Example(talk("a", "b", "c", "d")))
    at = np.flatnonzero(encoded.ids == FAMILIES[family]().convert_tokens_to_ids(prefix))
    assert at.tolist() == [0]
    assert not encoded.learn[0]
    assert encoded.learn[1:].all()


def test_a_prefix_the_chat_template_writes_is_not_doubled():
    source = (
        "<s>{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=sentencepiece().backend_tokenizer, bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = source
    encoded = Encoder(tokenizer, Chat(tokenizer), 64).encode(Example(talk("a", "b")))
    assert encoded.ids.tolist().count(tokenizer.bos_token_id) == 1
    tokenizer.chat_template = source.removeprefix("<s>")
    again = Encoder(tokenizer, Chat(tokenizer), 64).encode(Example(talk("a", "b")))
    assert again.ids[0] == tokenizer.bos_token_id


def test_train_on_inputs_learns_everything():
    assert (
        encoder("byte-level", "alpaca", train_on_inputs=True)
        .encode(Example(talk("a", "b")))
        .learn.all()
    )


@pytest.mark.parametrize(("family", "name"), PAIRS)
@settings(max_examples=10, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 90), min_size=2, max_size=6),
    max_length=st.integers(16, 120),
    system=st.booleans(),
)
def test_over_long_examples_keep_prompt_and_answer(family, name, sizes, max_length, system):
    turns = talk(*("tea " * size for size in sizes[: len(sizes) // 2 * 2]))
    rule = (Turn("system", "be brief"),) if system else ()
    turns = (*rule, *turns)
    whole = encoder(family, name).encode(Example(turns))
    short = encoder(family, name, max_length).encode(Example(turns))
    assert len(short.ids) <= max_length
    assert short.learn.any()
    assert short.prompt_cut or short.answer_cut or np.array_equal(short.ids, whole.ids)
    stop = encoder(family, name).stop_ids
    assert (short.ids[-1] in stop) == (not short.answer_cut)
    last = encoder(family, name).encode(Example((*rule, *turns[-2:])))
    if short.answer_cut or len(last.ids) >= max_length:  # nothing but the last exchange is left
        prompt, answer = runs(last.learn)[0][0], int(last.learn.sum())
        assert len(short.ids) == max_length
        assert int(short.learn.sum()) == min(answer, max_length - min(-(-max_length // 4), prompt))


def test_oldest_exchanges_go_first_and_the_system_turn_stays():
    turns = (Turn("system", "be brief"), *talk("tea " * 40, "one", "two", "three", "four", "five"))
    code = encoder("byte-level", "vicuna", 80)
    encoded = code.encode(Example(turns))
    assert encoded.prompt_cut
    assert not encoded.answer_cut
    text = code.decode(encoded.ids)
    assert text == "be brief USER: two ASSISTANT: threeUSER: four ASSISTANT: five"
    room = int(encoded.learn[-20:].sum())
    assert code.decode(code.prompt_ids(turns[:-1], room)) == text.removesuffix(" five")


def test_a_long_prompt_loses_its_middle_and_a_long_answer_its_end():
    code = encoder("byte-level", "vicuna", 64)
    cut = code.encode(Example((Turn("system", "be brief"), *talk("tea " * 99, "it is 4"))))
    assert (cut.prompt_cut, cut.answer_cut, len(cut.ids)) == (True, False, 64)
    text = code.decode(cut.ids)
    assert text.startswith("be brief USER: tea")
    assert text.endswith("tea  ASSISTANT: it is 4")

    long = code.encode(Example((Turn("system", "be brief"), *talk("tea " * 99, "paper " * 99))))
    assert (long.prompt_cut, long.answer_cut, len(long.ids)) == (True, True, 64)
    assert int(long.learn.argmax()) == 16  # a quarter
    assert long.ids[-1] not in code.stop_ids


def test_generation_prompts_leave_room_for_the_answer():
    code = encoder("byte-level", "vicuna", 64)
    turns = (Turn("system", "be brief"), *talk("tea " * 99))
    assert len(code.prompt_ids(turns)) == 64
    assert len(code.prompt_ids(turns, 20)) == 44
    assert len(code.prompt_ids(turns, 64)) == 16
    with pytest.raises(InputError, match="end with a user turn"):
        code.prompt_ids(talk("a", "b"))


def test_nothing_to_learn_is_counted_and_named():
    examples = [
        Example(talk("a", "b"), where="f:1"),
        Example(talk("a", " \n"), where="f:2"),
        Example((Turn("assistant", "hello"),), where="f:3"),
        Example((), where="f:4"),
        Example((Turn("system", "x"), *talk("a", "paper " * 99)), where="f:5"),
        Example((Turn("system", "x"), *talk("tea " * 99, "b")), where="f:6"),
    ]
    code = encoder("byte-level", "vicuna", 64)
    result = code.encode_all(examples)
    assert result.rows.tolist() == [0, 4, 5]
    assert [one.where for one in result.unlearnable] == ["f:2", "f:3", "f:4"]
    assert (result.prompts_cut, result.answers_cut) == (2, 1)
    for row, encoded in zip(result.rows, result.encoded, strict=True):
        assert np.array_equal(encoded.ids, code.encode(examples[row]).ids)
    assert isinstance(code.encode(examples[1]), Unlearnable)


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level().backend_tokenizer)
    with pytest.raises(InputError, match=r"neither eos_token nor sep_token.*tokenizer_config"):
        Encoder(tokenizer, PLAIN, 64)


def test_too_short_a_length_is_refused():
    with pytest.raises(InputError, match=r"template\.max_length: 15"):
        Encoder(wordpiece(), PLAIN, 15)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_tokenizer_passes(family):
    check_tokenizer(FAMILIES[family]())


def test_a_tokenizer_that_drops_spaces_is_refused(tmp_path):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"LlamaTokenizer.*'wemetatten.*AutoTokenizer"):
        check_tokenizer(LlamaTokenizer.from_pretrained(tmp_path))
