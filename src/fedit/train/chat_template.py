"""The tokenizer's own chat template as a Template: its markers, its end of turn, its own rules."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from fedit.core.errors import InputError
from fedit.core.examples import Turn
from fedit.train.templates import Segment, Template, whole_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ASK, _REPLY, _RULE = "fedit-ask", "fedit-reply", "fedit-rule"  # words no template writes itself
_REMEDY = "use template.name: vicuna, alpaca, plain or own, or change the tokenizer's chat_template"
# Laid before a template that asks for today's date, so that every run writes the same text.
_DAY = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


class Chat(Template):
    """What `apply_chat_template` writes; the answer is what it adds to its own generation prompt.

    The learned text ends with the template's end-of-turn token, and with the tokenizer's end of
    sequence where the template has none; what follows (a newline) is not learned. A system turn
    that the template refuses or ignores opens the first user turn instead, and "today" is always
    26 Jul 2024 (Llama 3's own default). Text inside the turns must not look like special tokens;
    `Encoder` sees to that.
    Raises InputError if there is no chat template or if it writes another prompt in training than
    for generation.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise InputError(
                f"template.name: chat: the tokenizer {tokenizer.name_or_path!r} has no chat "
                f"template; {_REMEDY}"
            )
        source = tokenizer.get_chat_template()
        self._source = _DAY + source if "strftime_now" in source else source
        self._takes_system = True
        self._takes_system = self._writes_system()
        ask, reply = Turn("user", _ASK), Turn("assistant", _REPLY)
        one, two = self._render((ask, reply)), self._render((ask, reply, ask, reply))
        _check_start(one, self._render((ask,)))
        if _REPLY not in one:
            raise InputError(
                f"template.name: chat: the chat template of {tokenizer.name_or_path!r} leaves out "
                f"the assistant's text; {_REMEDY}"
            )
        self._last = self._first_marker(one.partition(_REPLY)[2])
        self._inner = self._last
        if not two.startswith(one):  # closes earlier turns in another way than the last
            self._inner = self._first_marker(two.partition(_REPLY)[2].partition(_ASK)[0])
        self.ends = tuple(sorted({self._last, self._inner} - {""}))

    def segments(self, turns: Sequence[Turn], eos: str) -> list[Segment]:
        """The rendered conversation, cut where the assistant begins and where its turn ends."""
        whole = self._render(turns)
        segments: list[Segment] = []
        at = 0
        for index, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            prompt = self._render(turns[:index])
            _check_start(whole, prompt)
            marker = self._last if index == len(turns) - 1 else self._inner
            found = whole.find(marker, len(prompt)) if marker else -1
            if found >= 0:
                stop, close = found + len(marker), ""
            else:
                closed = self._render(turns[: index + 1])
                _check_start(whole, closed)
                stop, close = len(closed), eos
            segments.append(Segment(whole[at : len(prompt)], learn=False))
            segments.append(Segment(whole[len(prompt) : stop] + close, learn=True))
            at = stop
        if turns[-1].role == "user":
            segments.append(Segment(whole[at:], learn=False))
        return segments

    def _render(self, turns: Sequence[Turn]) -> str:
        """The text of the turns, with the generation prompt after a user turn."""
        messages = [{"role": turn.role, "content": whole_text(turn)} for turn in turns]
        if messages[0]["role"] == "system" and not self._takes_system and len(messages) > 1:
            system = messages.pop(0)["content"]
            messages[0]["content"] = f"{system}\n\n{messages[0]['content']}"
        ask = turns[-1].role == "user"
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=ask,
            )
        except (TemplateError, ValueError) as error:
            raise InputError(
                "template.name: chat: the chat template of "
                f"{self._tokenizer.name_or_path!r} refuses "
                f"{' + '.join(turn.role for turn in turns)} ({error}); {_REMEDY}"
            ) from error
        return text

    def _writes_system(self) -> bool:
        try:
            return _RULE in self._render((Turn("system", _RULE), Turn("user", _ASK)))
        except InputError:
            return False

    def _first_marker(self, text: str) -> str:
        """The added token that stands first in the text, the longest of several; "" for none."""
        tokens = (token.content for token in self._tokenizer.added_tokens_decoder.values())
        found = [token for token in tokens if token.strip() and token in text]
        return min(found, key=lambda token: (text.index(token), -len(token)), default="")


def _check_start(whole: str, start: str) -> None:
    """Refuse a template whose text for generation is not where its text for training begins."""
    if not whole.startswith(start):
        same = next(i for i in range(len(start)) if whole[i : i + 1] != start[i])
        raise InputError(
            "template.name: chat: the tokenizer's chat template rewrites the conversation: it "
            f"gives …{start[max(0, same - 40) :][:80]!r} for generation but "
            f"…{whole[max(0, same - 40) :][:80]!r} in training; {_REMEDY}"
        )
