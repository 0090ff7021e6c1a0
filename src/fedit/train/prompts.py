"""From examples to tokens: ids, and the mask of what is learned, made by construction."""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from fedit.core.errors import InputError
from fedit.core.examples import Example, Turn
from fedit.train.encoded import Encoded, EncodedSet, Unlearnable
from fedit.train.templates import Segment, Template, tidy
from fedit.train.tokens import SegmentTokenizer, end_of_sequence, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE = "we met at ten, had tea and read the paper"
SHORTEST = 16  # tokens; below this a prompt's head and tail and an answer cannot all be kept
_BATCH = 1024  # examples tokenised together


class Encoder:
    """A tokenizer and a template: the same tokens for training, evaluation and chat.

    The learned part begins exactly where the generation prompt ends, whatever the tokenizer.
    Of a pair only the last answers are learned: what stands before them is alike.
    Special tokens count as such where the template writes them; in the data their names are text.
    Over `max_length` tokens, first the oldest exchanges go (never the system turn), then the
    prompt's middle down to a quarter of `max_length`, then the answer's end with its end of turn.
    `stop_ids` end a generated answer; `pad_id` fills batches.
    Raises InputError for a tokenizer that cannot end a sequence or a `max_length` below SHORTEST.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: Template,
        max_length: int,
        train_on_inputs: bool = False,
    ) -> None:
        if max_length < SHORTEST:
            raise InputError(
                f"template.max_length: {max_length} is too short to hold a prompt and an answer; "
                f"give at least {SHORTEST}"
            )
        self._tokenizer = tokenizer
        self._template = template
        self._max_length = max_length
        self._train_on_inputs = train_on_inputs
        self._eos = end_of_sequence(tokenizer)
        self._segmenter = SegmentTokenizer(tokenizer, template, self._eos)
        ends = {self._eos, *template.ends}
        self.stop_ids: tuple[int, ...] = tuple(sorted(map(tokenizer.convert_tokens_to_ids, ends)))
        pad: int | None = tokenizer.pad_token_id
        self.pad_id: int = self.stop_ids[0] if pad is None else pad

    def encode(self, example: Example) -> Encoded | Unlearnable:
        """One example as tokens with their mask."""
        return next(self._encode([example]))

    def encode_all(self, examples: Sequence[Example]) -> EncodedSet:
        """All examples as tokens, tokenised in batches, with what was cut and what was refused."""
        starts = range(0, len(examples), _BATCH)
        batches = (self._encode(examples[start : start + _BATCH]) for start in starts)
        return EncodedSet.of(chain.from_iterable(batches))

    def prompt_ids(self, turns: Sequence[Turn], max_new_tokens: int = 0) -> list[int]:
        """The prompt of a conversation that ends with a user turn, to be continued by generation.

        Cut as in training, with `max_new_tokens` in the answer's place. Raises InputError if the
        last turn is not the user's.
        """
        turns = self._clean(turns)
        if not turns or turns[-1].role != "user":
            raise InputError("a prompt must end with a user turn: there is nothing to answer here")
        _, parts, _ = self._fit(turns, *next(self._tokenise([turns])), max_new_tokens)
        return list(chain.from_iterable(parts))

    def prompt(self, question: Turn) -> str:
        """The text of a prompt that asks one question, for a person to read."""
        return self._template.prompt((question,), self._eos)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids: no special tokens, no white space at its ends."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.strip()

    def _encode(self, examples: Sequence[Example]) -> Iterator[Encoded | Unlearnable]:
        talks = [[self._clean(talk) for talk in example.talks] for example in examples]
        learnable = [both for both in talks if all(map(_answered, both))]
        tokenised = self._tokenise(list(chain.from_iterable(learnable)))
        for example, both in zip(examples, talks, strict=True):
            if not all(map(_answered, both)):
                reason = "no assistant turn with a text, after a user turn, to learn from"
                yield Unlearnable(example.where, reason)
            elif len(both) == 1:
                yield self._mask(*self._fit(both[0], *next(tokenised)))
            else:
                yield self._pair(example.where, both, [next(tokenised) for _ in both])

    def _pair(
        self,
        where: str,
        talks: Sequence[tuple[Turn, ...]],
        tokenised: Sequence[tuple[list[Segment], list[list[int]]]],
    ) -> Encoded | Unlearnable:
        """Both conversations end to end, their prompt cut alike, and only the last answers learned."""
        lengths = [_length(parts) for _, parts in tokenised]
        chosen, rejected = (
            self._mask(*self._fit(talk, *of, max(lengths) - length), last=True)
            for talk, of, length in zip(talks, tokenised, lengths, strict=True)
        )
        if np.array_equal(chosen.ids, rejected.ids):
            reason = "chosen and rejected answer are the same tokens within template.max_length"
            return Unlearnable(where, reason)
        return Encoded(
            np.concatenate([chosen.ids, rejected.ids]),
            np.concatenate([chosen.learn, rejected.learn]),
            chosen.prompt_cut or rejected.prompt_cut,
            chosen.answer_cut or rejected.answer_cut,
            len(chosen.ids),
        )

    def _clean(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        plain = self._segmenter.plain
        return tuple(
            replace(turn, text=plain(turn.text), context=plain(turn.context))
            for turn in tidy(turns)
        )

    def _tokenise(
        self, talks: Sequence[tuple[Turn, ...]]
    ) -> Iterator[tuple[list[Segment], list[list[int]]]]:
        """The segments of each conversation and their ids."""
        segments = [self._template.segments(talk, self._eos) for talk in talks]
        return zip(segments, self._segmenter.parts(segments), strict=True)

    def _fit(
        self,
        turns: tuple[Turn, ...],
        segments: list[Segment],
        parts: list[list[int]],
        reserve: int = 0,
    ) -> tuple[list[Segment], list[list[int]], bool]:
        """Shorten the prompt as far as `max_length` asks, with `reserve` tokens kept free."""
        room = self._max_length - reserve
        if _length(parts) <= room:
            return segments, parts, False
        first = int(turns[0].role == "system")

        def without(oldest: int) -> tuple[list[Segment], list[list[int]]]:
            return next(self._tokenise([turns[:first] + turns[first + 2 * oldest :]]))

        droppable = range((len(turns) - first - 1) // 2)
        dropped = bisect_left(
            droppable, True, key=lambda oldest: _length(without(oldest)[1]) <= room
        )
        if dropped:
            segments, parts = without(dropped)
        prompt, *answer = parts
        kept = max(-(-self._max_length // 4), room - _length(answer))
        cut = _without_middle(prompt, kept)
        return segments, [cut, *answer], dropped > 0 or len(cut) < len(prompt)

    def _mask(
        self,
        segments: list[Segment],
        parts: list[list[int]],
        prompt_cut: bool,
        *,
        last: bool = False,
    ) -> Encoded:
        ids = np.fromiter(chain.from_iterable(parts), np.int32)
        learned = [segment.learn or self._train_on_inputs for segment in segments]
        if last:
            learned = [place == len(segments) - 1 for place in range(len(segments))]
        learn = np.repeat(learned, [len(part) for part in parts])
        learn[: len(self._segmenter.prefix)] = False  # nothing stands before it to tell it from
        length = self._max_length
        return Encoded(ids[:length], learn[:length], prompt_cut, answer_cut=len(ids) > length)


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", sample: str = SAMPLE) -> None:
    """Refuse a tokenizer that does not give back the words of a sample, as one that drops spaces.

    Case, accents and spaces around punctuation may change, as WordPiece changes them.
    Raises InputError.
    """
    ids = tokens(tokenizer, [sample])[0]
    back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if _words(back) != _words(sample):
        raise InputError(
            f"model: the tokenizer {type(tokenizer).__name__} of {tokenizer.name_or_path!r} turns "
            f"{sample!r} into {back!r}: it loses words or the spaces between them, most often "
            "because its class is not the one its files were made for; load it with AutoTokenizer "
            "and see that tokenizer_class in its tokenizer_config.json is right"
        )


def _words(text: str) -> list[str]:
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.findall(r"\w+", "".join(letters).casefold())


def _answered(talk: tuple[Turn, ...]) -> bool:
    return any(turn.role == "assistant" and turn.text.strip() for turn in talk)


def _length(parts: Sequence[Sequence[int]]) -> int:
    return sum(map(len, parts))


def _without_middle(ids: list[int], length: int) -> list[int]:
    """The first half and the last half of `length` tokens, the odd one going to the end."""
    head = length // 2
    return ids if len(ids) <= length else ids[:head] + ids[len(ids) - (length - head) :]
