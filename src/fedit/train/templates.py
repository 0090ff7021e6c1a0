"""Prompt templates: how a conversation becomes text, and which of that text the assistant wrote."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from string import Formatter

from fedit.core.errors import InputError
from fedit.core.examples import Turn


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text, and whether the model learns to write it."""

    text: str
    learn: bool


class Template(ABC):
    """The one way from turns to text, for training, evaluation and chat alike.

    `ends` holds the special tokens, other than the tokenizer's end of sequence, that close an
    assistant turn: generation stops at them.
    """

    ends: tuple[str, ...] = ()

    @abstractmethod
    def segments(self, turns: Sequence[Turn], eos: str) -> list[Segment]:
        """The conversation as text: prompts and answers in turn, each answer with its end of turn.

        `turns` are as `tidy` leaves them. A conversation that ends with the user gives exactly the
        segments that stand before the answer in training, so generation continues what was learned.
        """

    def prompt(self, turns: Sequence[Turn], eos: str) -> str:
        """The text before the answer, for a conversation that ends with a user turn."""
        return "".join(segment.text for segment in self.segments(turns, eos))


def tidy(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns as every template takes them: a system turn or none, then user, assistant, user …

    System turns are gathered at the front, neighbours of one role become one turn (a blank line
    between them), and what an assistant says before anything was asked is left out.
    """
    talk = [turn for turn in turns if turn.role != "system"]
    runs = [list(run) for _, run in groupby(talk, key=lambda turn: turn.role)]
    if runs and runs[0][0].role == "assistant":
        del runs[0]
    system = [turn for turn in turns if turn.role == "system"]
    return tuple(_merged(run) for run in ([system, *runs] if system else runs))


def whole_text(turn: Turn) -> str:
    """A turn's text, with its context after a blank line where the format has no place for it."""
    return f"{turn.text}\n\n{turn.context}" if turn.context.strip() else turn.text


def _merged(run: list[Turn]) -> Turn:
    return run[0] if len(run) == 1 else Turn(run[0].role, "\n\n".join(map(whole_text, run)))


class _Format:
    """A format string read once: its fields are checked now and filled in one pass later."""

    def __init__(self, key: str, text: str, needed: str, optional: tuple[str, ...] = ()) -> None:
        known = ", ".join(f"{{{name}}}" for name in (needed, *optional))
        remedy = f"known here: {known}; write {{{{ and }}}} for braces that belong to the text"
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise InputError(f"{key}: {text!r} is no format string ({error}); {remedy}") from None
        for _, name, spec, conversion in parts:
            if name is not None and name not in (needed, *optional):
                raise InputError(f"{key}: unknown field {{{name}}} in {text!r}; {remedy}")
            if spec or conversion:
                raise InputError(f"{key}: {{{name}}} in {text!r} must be bare, with no ! or :")
        self._parts = [(literal, name) for literal, name, _, _ in parts]
        self.names = [name for _, name in self._parts if name]
        if self.names.count(needed) != 1:
            raise InputError(f"{key}: {text!r} must hold {{{needed}}} exactly once; {remedy}")

    def fill(self, **values: str) -> str:
        """The text with its fields replaced; braces inside the values stay as they are."""
        return "".join(literal + (values[name] if name else "") for literal, name in self._parts)


class Custom(Template):
    """A template of format strings: prompt and answer, repeated for every exchange.

    `prompt` takes {instruction} and, if it likes, {context}; `prompt_without_context` is used for
    turns that have none; `answer` takes {response}, and all of it is learned. A context that
    `prompt` has no place for follows the instruction after a blank line, never lost.
    `system` (`system_with_context` where the first turn has a context) opens a conversation that
    brings no system turn of its own; `gap` follows it and `between` parts exchanges.
    Raises InputError for unknown or missing fields.
    """

    def __init__(
        self,
        prompt: str,
        prompt_without_context: str | None = None,
        answer: str = "{response}",
        *,
        system: str = "",
        system_with_context: str | None = None,
        gap: str = "\n\n",
        between: str = "\n\n",
    ) -> None:
        self._prompt = _Format("template.prompt", prompt, "instruction", ("context",))
        self._without = (
            self._prompt
            if prompt_without_context is None
            else _Format("template.prompt_without_context", prompt_without_context, "instruction")
        )
        self._answer = _Format("template.answer", answer, "response")
        self._system = system
        self._system_with_context = system if system_with_context is None else system_with_context
        self._gap, self._between = gap, between

    def segments(self, turns: Sequence[Turn], eos: str) -> list[Segment]:
        """Prompts and answers in turn; every answer ends with `eos`."""
        given = turns[0].text if turns and turns[0].role == "system" else None
        talk = turns if given is None else turns[1:]
        segments: list[Segment] = []
        for turn in talk:
            if turn.role == "assistant":
                segments.append(Segment(self._answer.fill(response=turn.text) + eos, learn=True))
            else:
                before = self._between if segments else self._opening(turn, given)
                segments.append(Segment(before + self._ask(turn), learn=False))
        return segments

    def _opening(self, first: Turn, given: str | None) -> str:
        default = self._system_with_context if first.context.strip() else self._system
        system = default if given is None else given
        return system + self._gap if system else ""

    def _ask(self, turn: Turn) -> str:
        if not turn.context.strip():
            return self._without.fill(instruction=turn.text, context="")
        if "context" in self._prompt.names:
            return self._prompt.fill(instruction=turn.text, context=turn.context)
        return self._prompt.fill(instruction=whole_text(turn))


ALPACA = Custom(
    "### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:",
    "### Instruction:\n{instruction}\n\n### Response:",
    system="Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.",
    system_with_context="Below is an instruction that describes a task, paired with an input that "
    "provides further context. Write a response that appropriately completes the request.",
)
"""Stanford Alpaca (2023, its train.py): the answer follows "### Response:" at once; later exchanges
repeat the headings without the preamble, and a system turn stands in the preamble's place."""

VICUNA = Custom(
    "USER: {instruction} ASSISTANT:",
    answer=" {response}",
    system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    gap=" ",
    between="",
)
"""Vicuna v1.1 (FastChat, arXiv 2306.05685): "{system} USER: … ASSISTANT: …</s>USER: …"."""

PLAIN = Custom("{instruction}\n{context}\n\n", "{instruction}\n\n")
"""Instruction, context, a blank line, answer: nothing but the data."""
