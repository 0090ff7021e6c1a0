import pytest

from fedit.core.errors import InputError
from fedit.core.examples import Example, Turn
from fedit.data.rows import BadRow, Row
from fedit.data.shapes import mapped, recognise, to_example


def made(values: dict[str, object]) -> Example | BadRow:
    row = Row("f.jsonl:1", values)
    return to_example(row, recognise("f.jsonl", [row]), "f")


def reason(values: dict[str, object]) -> str:
    bad = made(values)
    assert isinstance(bad, BadRow)
    assert bad.where == "f.jsonl:1"
    return bad.reason


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ("instruction context response category", "dolly"),
        ("instruction response", "dolly"),
        ("instruction input output", "alpaca"),
        ("instruction output", "alpaca"),
        ("prompt completion", "prompt/completion"),
        ("prompt response", "prompt/response"),
        ("question answer context", "question/answer"),
        ("inputs targets", "inputs/targets"),
        ("input output", "input/output"),
    ],
)
def test_a_pair_is_recognised_by_its_columns(columns, name):
    values = {column: f"the {column}" for column in columns.split()}
    shape = recognise("f", [Row("f:1", values)])
    example = to_example(Row("f:1", values), shape, "f")
    assert shape.name == name
    assert isinstance(example, Example)
    user, assistant = example.turns
    assert user.text == f"the {shape.columns['instruction']}"
    assert user.context in ("", f"the {shape.columns['context']}")
    assert assistant == Turn("assistant", f"the {shape.columns['response']}")


def test_both_ways_to_write_a_conversation_give_the_same_turns():
    messages = made(
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "u"},
                {"role": "assistant", "content": "a"},
            ]
        }
    )
    sharegpt = made(
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "u"},
                {"from": "gpt", "value": "a"},
            ]
        }
    )
    assert isinstance(messages, Example)
    assert isinstance(sharegpt, Example)
    assert messages.turns == sharegpt.turns
    assert messages.turns == (Turn("system", "s"), Turn("user", "u"), Turn("assistant", "a"))


def test_one_row_without_its_instruction_does_not_change_the_shape():
    full = {"instruction": "i", "input": "", "output": "o"}
    rows = [Row("f:1", full), Row("f:2", {"input": "x", "output": "o"}), Row("f:3", full)]
    shape = recognise("f", rows)
    assert shape.name == "alpaca"
    assert to_example(rows[1], shape, "f") == BadRow("f:2", "no column 'instruction'")


def test_an_unknown_shape_names_the_columns_and_the_remedy():
    with pytest.raises(InputError, match=r"among the columns: reply, text; .*data\.columns"):
        recognise("f", [Row("f:1", {"text": "a", "reply": "b"})])


@pytest.mark.parametrize("empty", [None, "", "  \n", ...])
def test_context_may_be_missing_null_or_empty(empty):
    given = {} if empty is ... else {"context": empty}
    example = made({"instruction": "i", "response": "r", **given})
    assert isinstance(example, Example)
    assert example.turns[0] == Turn("user", "i", "")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"instruction": None, "response": "r"}, "'instruction') is null, not text"),
        ({"instruction": 5, "response": "r"}, "'instruction') is a number, not text"),
        ({"instruction": "i", "response": ["r"]}, "'response') is a list, not text"),
        ({"instruction": " ", "response": "r"}, "instruction (column 'instruction') is empty"),
        ({"instruction": "i", "response": "\n\t "}, "answer (column 'response') is empty"),
        ({"instruction": "i", "context": 1, "response": "r"}, "'context') is a number"),
        ({"instruction": "i", "response": "a\0b"}, "NUL"),
        ({"messages": None}, "'messages') is null, not a list"),
        ({"messages": []}, "conversation is empty"),
        ({"messages": ["hi"]}, "message 1 is text, not an object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "unknown role 'tool'"),
        ({"messages": [{"role": "user", "content": None}]}, "text of message 1 is null"),
        ({"messages": [{"role": "user", "content": "u"}]}, "ends with the user"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "where the user is due"),
        ({"messages": [{"role": "system", "content": "s"}]}, "conversation is empty"),
        ({"messages": [{"role": "user", "content": "u"}] * 2}, "message 2 is from the user"),
        (
            {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": " "}]},
            "text of assistant message 2 is empty",
        ),
    ],
)
def test_a_bad_row_says_why(values, expected):
    assert expected in reason(values)


ANSWERS = {"chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize(
    ("asked", "turn"),
    [
        ({"prompt": "p"}, Turn("user", "p")),
        ({"question": "q", "context": "c"}, Turn("user", "q", "c")),
        ({"instruction": "i", "context": "c"}, Turn("user", "i", "c")),
        ({"instruction": "i", "input": "x"}, Turn("user", "i", "x")),
        ({"instruction": "i"}, Turn("user", "i")),
        ({"messages": [{"role": "user", "content": "m"}]}, Turn("user", "m")),
        ({"conversations": [{"from": "human", "value": "s"}]}, Turn("user", "s")),
    ],
)
def test_pairs_of_every_shape(asked, turn):
    example = made({**asked, **ANSWERS, "source": "s"})
    assert isinstance(example, Example)
    assert example.talks == (
        (turn, Turn("assistant", "good")),
        (turn, Turn("assistant", "bad")),
    )
    assert example.labels == {"source": "s", "file": "f"}


def test_a_single_answer_is_no_pair():
    example = made({"prompt": "p", "response": "r"})
    assert isinstance(example, Example)
    assert (example.rejected, example.talks) == ("", (example.turns,))


def test_a_pair_whose_conversation_is_answered_already_is_refused():
    talk = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    assert "ends with the assistant" in reason({"messages": talk, **ANSWERS})


def test_a_mapping_takes_pairs():
    shape = mapped({"instruction": "q", "chosen": "a", "rejected": "b"})
    example = to_example(Row("f:1", {"q": "Q", "a": "A", "b": "B"}), shape, "f")
    assert isinstance(example, Example)
    assert (example.answer, example.rejected) == ("A", "B")
    assert mapped({"messages": "m", "chosen": "a", "rejected": "b"}).required == {"m", "a", "b"}


def test_scalar_columns_become_labels_and_the_rest_is_left_out():
    extra = {"n": 3, "f": 0.5, "b": True, "none": None, "list": [1], "obj": {}, "blank": " "}
    example = made({"instruction": "i", "response": "r", "source": "s", **extra})
    assert isinstance(example, Example)
    expected = {"source": "s", "n": "3", "f": "0.5", "b": "True", "file": "f"}
    assert example.labels == expected


def test_a_mapping_takes_columns_as_told():
    shape = mapped({"instruction": "q", "response": "a"})
    example = to_example(Row("f:1", {"q": "Q", "a": "A", "response": "label"}), shape, "f")
    assert isinstance(example, Example)
    assert (example.turns[0].text, example.answer) == ("Q", "A")
    assert example.labels["response"] == "label"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"instrution": "q", "response": "a"}, "did you mean 'instruction'"),
        ({"instruction": "q"}, "name 'messages' alone"),
        ({"messages": "m", "response": "a"}, "name 'messages' alone"),
        ({}, "nothing given"),
        ({"instruction": "q", "chosen": "a"}, "for pairs 'chosen' and 'rejected'"),
        ({"instruction": "q", "response": "r", "rejected": "b"}, "for pairs"),
    ],
)
def test_a_mapping_with_other_keys_is_refused(mapping, message):
    with pytest.raises(InputError, match=message):
        mapped(mapping)
