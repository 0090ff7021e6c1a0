"""Segments of text to token ids, so that a prompt's ids always begin its training ids."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from fedit.core.errors import InputError
from fedit.core.examples import Turn
from fedit.train.templates import Segment, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTEXT = 64  # characters of the segment before that a segment's tokens may depend on
_SPLIT = "\ufdd0"  # a noncharacter: parts the letters of a special token's name in the data


class SegmentTokenizer:
    """A tokenizer for segments: each one's ids depend on it and the end of the one before it only.

    A segment's ids are what it adds to the ids of the text before it; where the two would melt into
    other tokens, it is tokenised alone. So whatever the tokenizer, what follows a segment never
    changes its ids.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: Template, eos: str) -> None:
        self._tokenizer = tokenizer
        self._names = _special_names(tokenizer, template, eos)
        self.prefix = _prefix(tokenizer)

    def plain(self, text: str) -> str:
        """The text with the names of special tokens parted, so that none is read as a token.

        Lone surrogates, as "\\ud83d" in JSON, become "?"; the noncharacter U+FDD0 is dropped.
        """
        if not text.isascii():
            text = text.replace(_SPLIT, "").encode("utf-8", "replace").decode("utf-8")
        if self._names.search(text):
            text = re.sub(rf"(?={self._names.pattern})(.)", rf"\1{_SPLIT}", text, flags=re.DOTALL)
        return text

    def parts(self, conversations: Sequence[Sequence[Segment]]) -> list[list[list[int]]]:
        """The ids of every segment of every conversation; the first begins with `prefix`."""
        texts: list[str] = []
        for segments in conversations:
            texts.append(segments[0].text)
            for one, two in pairwise(segments):
                before = one.text[-_CONTEXT:]
                texts += before, before + two.text
        ids = iter(self._ids(texts))
        result = []
        for segments in conversations:
            parts = [_led(self.prefix, next(ids))]
            for segment in segments[1:]:
                added = _after(next(ids), next(ids))
                parts.append(self._alone(segment.text) if added is None else added)
            result.append(parts)
        return result

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        result = tokens(self._tokenizer, [text.partition(_SPLIT)[0] for text in texts])
        for ids, text in zip(result, texts, strict=True):
            _, parted, rest = text.partition(_SPLIT)
            if parted:
                ids += self._alone(rest)
        return result

    def _alone(self, text: str) -> list[int]:
        """The ids of a text that follows other text: without the mark of a first word."""
        ids: list[int] = []
        for piece in text.split(_SPLIT):
            before, both, alone = tokens(self._tokenizer, ["\n", f"\n{piece}", piece])
            added = _after(before, both)
            ids += alone if added is None else added
        return ids


def tokens(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    """The ids of each text, with nothing put before or after it."""
    if not texts:  # which transformers does not take
        return []
    ids: list[list[int]] = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return ids


def end_of_sequence(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The token that ends a sequence: eos, or sep; InputError if the tokenizer has neither."""
    token: str | None = tokenizer.eos_token or tokenizer.sep_token
    if token is None:
        raise InputError(
            f"model: the tokenizer {tokenizer.name_or_path!r} has neither eos_token nor sep_token, "
            "so a model could not learn to stop; name an eos_token in its tokenizer_config.json"
        )
    return token


def _prefix(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """What the tokenizer itself puts before a text (BOS, [CLS] or nothing), as its ids show it."""
    bare = tokens(tokenizer, ["a"])[0]
    full: list[int] = tokenizer("a")["input_ids"]
    starts = range(len(full) - len(bare) + 1)
    return full[: next((i for i in starts if full[i : i + len(bare)] == bare), 0)]


def _led(prefix: list[int], ids: list[int]) -> list[int]:
    return ids if ids[: len(prefix)] == prefix else prefix + ids


def _after(before: list[int], both: list[int]) -> list[int] | None:
    return both[len(before) :] if both[: len(before)] == before else None


def _special_names(
    tokenizer: "PreTrainedTokenizerBase", template: Template, eos: str
) -> re.Pattern[str]:
    """Matches the name of every special token, and of every added token the template writes."""
    scaffold = template.prompt((Turn("user", "a"),), eos)
    names = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content.strip() and token.content in scaffold)
    }
    names |= {*tokenizer.all_special_tokens, *template.ends}
    longest_first = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})")
