"""From a row to an Example: which columns hold the instruction, its context and the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedit.core.errors import InputError
from fedit.core.examples import Example, Role, Turn
from fedit.data.nearest import nearest
from fedit.data.rows import BadRow, Row, kind


@dataclass(frozen=True, slots=True)
class Shape:
    """Column names by part: `instruction`, `response` and perhaps `context`, or `messages`.

    Pairs have `chosen` and `rejected` in the place of `response`, or beside `messages` that the user ends.
    """

    name: str
    columns: Mapping[str, str]

    @property
    def required(self) -> set[str]:
        """The columns that every row must have; `context` may be missing."""
        return {column for part, column in self.columns.items() if part != "context"}


def _pair(name: str, instruction: str, context: str, response: str) -> Shape:
    return Shape(name, {"instruction": instruction, "context": context, "response": response})


def _preferences(name: str, **asked: str) -> Shape:
    return Shape(
        f"{name} with chosen, rejected", {**asked, "chosen": "chosen", "rejected": "rejected"}
    )


SHAPES = (  # the first that fits is taken
    _preferences("messages", messages="messages"),
    _preferences("sharegpt", messages="conversations"),
    _preferences("dolly", instruction="instruction", context="context"),
    _preferences("alpaca", instruction="instruction", context="input"),
    _preferences("prompt", instruction="prompt", context="context"),
    _preferences("question", instruction="question", context="context"),
    _preferences("query", instruction="query", context="context"),
    Shape("messages", {"messages": "messages"}),
    Shape("sharegpt", {"messages": "conversations"}),
    _pair("dolly", "instruction", "context", "response"),
    _pair("alpaca", "instruction", "input", "output"),
    _pair("prompt/completion", "prompt", "context", "completion"),
    _pair("prompt/response", "prompt", "context", "response"),
    _pair("question/answer", "question", "context", "answer"),
    _pair("question/response", "question", "context", "response"),
    _pair("query/response", "query", "context", "response"),
    _pair("inputs/targets", "inputs", "context", "targets"),
    _pair("input/output", "input", "context", "output"),
)
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}


def recognise(file: str, rows: Sequence[Row]) -> Shape:
    """The first known shape that half of the rows have, else the one that most have.

    Raises InputError naming the columns found when no row has the columns of any shape.
    """
    counts = {
        shape.name: sum(row.values.keys() >= shape.required for row in rows) for shape in SHAPES
    }
    names = {column for row in rows for column in row.values}
    for shape in SHAPES:
        if 2 * counts[shape.name] >= len(rows):
            alike = (one for one in SHAPES if one.required == shape.required)
            return next((one for one in alike if one.columns.get("context") in names), shape)
    best = max(SHAPES, key=lambda shape: counts[shape.name])
    if counts[best.name]:
        return best
    found = ", ".join(sorted(names)) or "none"
    raise InputError(
        f"{file}: no known shape among the columns: {found}; say what they hold with data.columns, "
        "such as {instruction: question, response: answer} or {messages: dialogue}"
    )


def mapped(mapping: Mapping[str, str]) -> Shape:
    """The shape a mapping asks for: {instruction, [context], response} or {messages} → column.

    Pairs ask for {instruction, [context], chosen, rejected} or {messages, chosen, rejected}.

    Raises InputError for any other set of keys.
    """
    parts = ("instruction", "context", "response", "messages", "chosen", "rejected")
    for part in mapping:
        if part not in parts:
            known = ", ".join(parts)
            raise InputError(
                f"data.columns: unknown key {part!r}{nearest(part, parts)}; known: {known}"
            )
    pair, given = {"chosen", "rejected"}, set(mapping)
    known_sets = ({"instruction", "response"}, {"instruction"} | pair)
    if given not in ({"messages"}, {"messages"} | pair) and given - {"context"} not in known_sets:
        raise InputError(
            f"data.columns: {', '.join(sorted(mapping)) or 'nothing'} given; name 'messages' "
            "alone, or 'instruction' and 'response' with or without 'context'; for pairs 'chosen' and "
            "'rejected' in the place of 'response' or beside 'messages'"
        )
    return Shape("mapping", dict(mapping))


def check_columns(source: str, shape: Shape, rows: Sequence[Row]) -> None:
    """Raises InputError when the shape names a column that no row of the source has."""
    found = sorted({column for row in rows for column in row.values})
    for part, column in shape.columns.items():
        if column not in found:
            raise InputError(
                f"data.columns.{part}: no row of {source} has a column {column!r}"
                f"{nearest(column, found)}; columns found: {', '.join(found)}"
            )


def to_example(row: Row, shape: Shape, file: str) -> Example | BadRow:
    """The row as an Example, its other scalar columns and `file` as labels, or why it is none."""
    try:
        turns = _turns(row.values, shape)
        rejected = _rejected(row.values, shape, turns[-1].text)
    except ValueError as error:
        return BadRow(row.where, str(error))
    used = set(shape.columns.values())
    labels = {
        column: str(value)
        for column, value in row.values.items()
        if column not in used and isinstance(value, str | int | float) and str(value).strip()
    }
    return Example(turns, labels | {"file": file}, row.where, rejected)


def _turns(values: Mapping[str, Any], shape: Shape) -> tuple[Turn, ...]:
    for column in sorted(shape.required - values.keys()):
        raise ValueError(f"no column {column!r}")
    if "messages" in shape.columns:
        column = shape.columns["messages"]
        if "chosen" not in shape.columns:
            return _conversation(values[column], column)
        asked_in = _conversation(values[column], column, answered=False)
        return (*asked_in, Turn("assistant", _answer(values, shape, "chosen")))
    instruction = shape.columns["instruction"]
    asked = _filled(values[instruction], f"instruction (column {instruction!r})")
    context = shape.columns.get("context", "")
    given = values.get(context)
    passage = "" if given is None else _text(given, f"context (column {context!r})")
    answer = _answer(values, shape, "chosen" if "chosen" in shape.columns else "response")
    return (Turn("user", asked, passage if passage.strip() else ""), Turn("assistant", answer))


def _rejected(values: Mapping[str, Any], shape: Shape, chosen: str) -> str:
    """A pair's worse answer, "" where the shape has none."""
    if "rejected" not in shape.columns:
        return ""
    rejected = _answer(values, shape, "rejected")
    if rejected.strip() == chosen.strip():
        raise ValueError("the chosen and the rejected answer are equal")
    return rejected


def _answer(values: Mapping[str, Any], shape: Shape, part: str) -> str:
    column = shape.columns[part]
    return _filled(values[column], f"answer (column {column!r})")


def _conversation(messages: object, column: str, *, answered: bool = True) -> tuple[Turn, ...]:
    if not isinstance(messages, list):
        raise ValueError(f"the conversation (column {column!r}) is {kind(messages)}, not a list")
    turns = [_turn(message, number) for number, message in enumerate(messages, start=1)]
    if turns and turns[0].role == "system":
        opening = turns[:1] if turns[0].text.strip() else []
        spoken = turns[1:]
    else:
        opening, spoken = [], turns
    if not spoken:
        raise ValueError("the conversation is empty")
    for number, turn in enumerate(spoken, start=1):
        due = "user" if number % 2 else "assistant"
        if turn.role != due:
            place = number + len(turns) - len(spoken)
            raise ValueError(f"message {place} is from the {turn.role} where the {due} is due")
        _filled(turn.text, f"text of {turn.role} message {number + len(turns) - len(spoken)}")
    if not answered and spoken[-1].role != "user":
        raise ValueError(
            "the conversation of a pair ends with the assistant, not with the user who is answered"
        )
    if answered and spoken[-1].role != "assistant":
        raise ValueError("the conversation ends with the user, not with the assistant")
    return (*opening, *spoken)


def _turn(message: object, number: int) -> Turn:
    if not isinstance(message, dict):
        raise ValueError(f"message {number} is {kind(message)}, not an object")
    role = message.get("role", message.get("from"))
    if not isinstance(role, str) or role.strip().lower() not in _ROLES:
        known = ", ".join(_ROLES)
        raise ValueError(f"message {number} has the unknown role {role!r}; known: {known}")
    text = message.get("content", message.get("value"))
    return Turn(_ROLES[role.strip().lower()], _text(text, f"text of message {number}"))


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the {what} is {kind(value)}, not text")
    if "\0" in value:
        raise ValueError(f"the {what} holds a NUL character")
    return value


def _filled(value: object, what: str) -> str:
    text = _text(value, what)
    if not text.strip():
        raise ValueError(f"the {what} is empty")
    return text
