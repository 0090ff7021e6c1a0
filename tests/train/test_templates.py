"""Templates: the formats to the letter, and a prompt that is what stands before the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedit.core.errors import InputError
from fedit.core.examples import Turn
from fedit.train.chat_template import Chat
from fedit.train.templates import ALPACA, PLAIN, VICUNA, Custom, tidy
from tests.tokenizers import CHATML, byte_level, chatml, with_chat_template

ASK = Turn("user", "Name a colour.")
REPLY = Turn("assistant", "Red")
SYSTEM = Turn("system", "Be brief.")
FORMATS = {"alpaca": ALPACA, "vicuna": VICUNA, "plain": PLAIN}
# As Qwen 3 does: only the last answer carries a block of thoughts.
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def text(template, turns):
    return "".join(segment.text for segment in template.segments(turns, "</s>"))


def learned(template, turns):
    return [segment.text for segment in template.segments(turns, "</s>") if segment.learn]


def test_alpaca_to_the_letter():
    assert text(ALPACA, (ASK, REPLY)) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nName a colour.\n\n### Response:Red</s>"
    )
    with_input = (Turn("user", "Name a colour.", "a rose"), REPLY)
    assert text(ALPACA, with_input) == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "Name a colour.\n\n### Input:\na rose\n\n### Response:Red</s>"
    )


def test_alpaca_repeats_its_headings_without_the_preamble():
    assert text(ALPACA, (ASK, REPLY, ASK, REPLY)) == text(ALPACA, (ASK, REPLY)) + (
        "\n\n### Instruction:\nName a colour.\n\n### Response:Red</s>"
    )


def test_vicuna_to_the_letter():
    assert text(VICUNA, (ASK, REPLY, ASK, REPLY)) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. "
        "USER: Name a colour. ASSISTANT: Red</s>USER: Name a colour. ASSISTANT: Red</s>"
    )


@pytest.mark.parametrize("template", FORMATS.values(), ids=FORMATS)
def test_a_system_turn_takes_the_preambles_place(template):
    whole = text(template, (SYSTEM, ASK, REPLY))
    assert whole.startswith("Be brief.")
    assert "Below is" not in whole
    assert "A chat between" not in whole


def test_a_context_without_a_place_follows_the_instruction():
    assert "USER: Sum up.\n\nIt rained. ASSISTANT:" in VICUNA.prompt(
        (Turn("user", "Sum up.", "It rained."),), "</s>"
    )


@given(st.text(), st.text(), st.text())
def test_braces_in_the_data_are_data(instruction, context, response):
    template = Custom("{{Q}} {instruction} | {context} A:", "{instruction} A:", " {response}")
    turns = (
        Turn("user", "{context}{0}" + instruction, "{instruction}" + context),
        Turn("assistant", "{response}" + response),
    )
    assert text(template, turns) == (
        "{Q} {context}{0}" + instruction + " | {instruction}" + context + " A: {response}"
        f"{response}</s>"
    )


@pytest.mark.parametrize(
    ("formats", "named"),
    [
        (("{instruction} {input}",), r"template\.prompt: unknown field \{input\}"),
        (("{instruction}{}",), r"template\.prompt: unknown field \{\}"),
        (("{instruction:>9}",), r"template\.prompt: \{instruction\}.*bare"),
        (("{instruction.text}",), r"unknown field \{instruction\.text\}"),
        (("{instruction",), r"template\.prompt: .*no format string"),
        (("{context}",), r"template\.prompt: .*\{instruction\} exactly once"),
        (("{instruction}", "{instruction} {context}"), r"template\.prompt_without_context"),
        (("{instruction}", None, "{answer}"), r"template\.answer: unknown field \{answer\}"),
        (("{instruction}", None, "yes"), r"template\.answer: .*\{response\} exactly once"),
    ],
)
def test_format_strings_are_checked_at_once(formats, named):
    with pytest.raises(InputError, match=named):
        Custom(*formats)


def test_tidy():
    a, b, c = Turn("user", "a", "ctx"), Turn("user", "b"), Turn("assistant", "c")
    assert tidy((c, a, b, c, SYSTEM, c)) == (
        SYSTEM,
        Turn("user", "a\n\nctx\n\nb"),
        Turn("assistant", "c\n\nc"),
    )
    assert tidy((a, c)) == (a, c)
    assert tidy((c,)) == ()


def test_chat_learns_the_remainder_up_to_its_end_of_turn():
    template = Chat(chatml())
    assert template.ends == ("<|im_end|>",)
    turns = (SYSTEM, ASK, REPLY, ASK, Turn("assistant", "Blue"))
    assert learned(template, turns) == ["Red<|im_end|>", "Blue<|im_end|>"]
    assert text(template, turns) + "\n" == chatml().apply_chat_template(
        [{"role": turn.role, "content": turn.text} for turn in turns], tokenize=False
    )


def test_chat_without_an_end_of_turn_learns_eos():
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    template = Chat(with_chat_template(source))
    assert template.ends == ()
    assert learned(template, (ASK, REPLY, ASK, REPLY)) == ["Red\n</s>", "Red\n</s>"]


def test_chat_that_closes_earlier_turns_otherwise():
    thinks = Chat(with_chat_template(THINKS))
    assert learned(thinks, (ASK, REPLY, ASK, REPLY)) == [
        "Red<|im_end|>",
        "<think>\n\n</think>\n\nRed<|im_end|>",
    ]
    returns = (  # as gpt-oss does: one token ends a turn, another the conversation
        "{% for m in messages %}<|im_start|>{{ m.role }}<|message|>{{ m.content }}"
        "{% if m.role == 'assistant' and loop.last %}<|return|>{% else %}<|im_end|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    closes = Chat(with_chat_template(returns, extra=("<|message|>", "<|return|>")))
    assert closes.ends == ("<|im_end|>", "<|return|>")
    assert learned(closes, (ASK, REPLY, ASK, REPLY)) == [
        "<|message|>Red<|im_end|>",
        "<|message|>Red<|return|>",
    ]


def test_chat_folds_a_system_turn_the_template_refuses_or_ignores():
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
    ignores = CHATML.replace("%}<|im_start|>", "%}{% if m.role != 'system' %}<|im_start|>", 1)
    ignores = ignores.replace("{% endfor", "{% endif %}{% endfor")
    for source in (refuses, ignores):
        prompt = Chat(with_chat_template(source)).prompt((SYSTEM, ASK), "</s>")
        assert "<|im_start|>user\nBe brief.\n\nName a colour.<|im_end|>" in prompt


def test_chat_writes_the_same_day_every_day():
    source = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
    assert Chat(with_chat_template(source)).prompt((ASK,), "").startswith("26 Jul 2024\n")


def test_chat_refuses_what_it_cannot_train():
    with pytest.raises(InputError, match=r"no chat template.*vicuna"):
        Chat(byte_level())
    rewrites = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
    with pytest.raises(InputError, match=r"rewrites the conversation.*vicuna"):
        Chat(with_chat_template(rewrites))
    with pytest.raises(InputError, match="leaves out"):
        Chat(with_chat_template("{% for m in messages %}{{ m.role }}{% endfor %}"))


@pytest.mark.parametrize("name", [*FORMATS, "own", "chat", "thinks"])
@pytest.mark.parametrize("system", [(), (SYSTEM,)], ids=["bare", "system"])
def test_a_prompt_is_the_text_before_the_answer(name, system):
    template = {
        **FORMATS,
        "own": Custom("Q: {instruction} ({context})\nA:", answer=" {response}\n"),
        "chat": Chat(chatml()),
        "thinks": Chat(with_chat_template(THINKS)),
    }[name]
    turns = (*system, ASK, REPLY, Turn("user", "And?", "a rose"), Turn("assistant", "Pink"))
    segments = template.segments(turns, "</s>")
    assert [segment.learn for segment in segments] == [False, True, False, True]
    assert template.segments(turns[:-1], "</s>") == segments[:-1]
    assert template.prompt(turns[:-1], "</s>") + segments[-1].text == text(template, turns)
