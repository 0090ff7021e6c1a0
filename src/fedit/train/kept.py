"""Tokens that were made before are not made again: a file of them, and the key that says what they are of."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fedit.config import Template
from fedit.core.examples import Example
from fedit.train.encoded import EncodedSet
from fedit.train.prompts import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encoded_in(
    path: Path,
    examples: Sequence[Example],
    encoder: Encoder,
    tokenizer: "PreTrainedTokenizerBase",
    template: Template,
) -> EncodedSet:
    """The examples as tokens, mapped from `path`; made and written there unless it holds just them, whole.

    `encoder` is the one made of `tokenizer` and `template`.
    """
    key = key_of(examples, tokenizer, template)
    found = EncodedSet.open(path, key) if key else None
    if found is None:
        encoder.encode_all(examples).save(path, key or "")
        found = EncodedSet.open(path)
    assert found is not None  # it was written just now
    return found


def key_of(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerBase", template: Template
) -> str | None:
    """sha256 over all that tokens depend on; None for a tokenizer in Python, whose rules cannot be read."""
    if not tokenizer.is_fast:
        return None
    parts = [
        *(f"{name} {version(name)}" for name in ("fedit", "transformers", "tokenizers")),
        template.model_dump_json(),
        type(tokenizer).__name__,
        tokenizer.backend_tokenizer.to_str(),
        repr(sorted(tokenizer.special_tokens_map.items())),
        repr(tokenizer.chat_template),
    ]
    digest = hashlib.sha256(repr(parts).encode())
    for example in examples:
        digest.update(repr((example.where, example.talks)).encode())
    return digest.hexdigest()
