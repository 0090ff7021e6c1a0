"""The label each example carries in a column, read from its row or derived from its text."""

import unicodedata
from collections import Counter
from functools import cache

import numpy as np

from fedit.core.errors import InputError
from fedit.core.examples import Example
from fedit.data.nearest import nearest

PSEUDO = ("@length", "@script", "@similarity")
_SCRIPTS = {
    "CJK": "han",
    "HIRAGANA": "kana",
    "KATAKANA": "kana",
    "HALFWIDTH": "kana",
    "FULLWIDTH": "latin",
}
_OPENING = 250  # characters, enough to tell a text's script and topic
_WORD = r"[\u3040-\u30ff\u3400-\u9fff]|\w+"  # Han and kana have no spaces: a character is a word


def labels(examples: list[Example], column: str, *, bins: int = 8, seed: int = 0) -> list[str]:
    """One label an example: its row's value of `column`, or one derived without labels.

    `@length` cuts the characters of all turns into `bins` quantiles, `@script` names the dominant
    Unicode script, `@similarity` makes `bins` clusters of like texts (seeded). Raises InputError
    for a column that an example lacks, an unknown pseudo-column and fewer than one bin.
    """
    if bins < 1:
        raise InputError(f"bins {bins}: at least one bin is needed")
    if not column.startswith("@"):
        return [_value(example, column) for example in examples]
    if column not in PSEUDO:
        known = ", ".join(PSEUDO)
        raise InputError(
            f"column {column!r}: no such derived column{nearest(column, PSEUDO)}; known: {known}"
        )
    texts = [_text(example) for example in examples]
    if column == "@length":
        return _length(texts, bins)
    if column == "@script":
        return [_script(text) for text in texts]
    return _similarity(texts, bins, seed)


def _value(example: Example, column: str) -> str:
    if column not in example.labels:
        there = sorted(example.labels)
        raise InputError(
            f"column {column!r}: {example.where} has no value in it{nearest(column, there)}; its "
            f"columns: {', '.join(there)}; name one of them or derive one: {', '.join(PSEUDO)}"
        )
    return example.labels[column]


def _text(example: Example) -> str:
    return "\n".join(part for turn in example.turns for part in (turn.text, turn.context) if part)


def _length(texts: list[str], bins: int) -> list[str]:
    if not texts:
        return []
    lengths = np.array([len(text) for text in texts])
    edges = np.unique(np.quantile(lengths, np.arange(1, bins) / bins, method="lower"))
    bin_of = np.unique(np.searchsorted(edges, lengths), return_inverse=True)[1]
    width = len(str(bin_of.max()))
    names = {}
    for number in range(bin_of.max() + 1):
        inside = lengths[bin_of == number]
        names[number] = f"length-{number:0{width}d} ({inside.min()}-{inside.max()})"
    return [names[number] for number in bin_of.tolist()]


def _script(text: str) -> str:
    """The script with the most letters in the opening; "none" without letters."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text[:_OPENING]).items():
        if script := _script_of(character):
            counts[script] += count
    if 5 * counts["kana"] > counts["han"] > 0:  # Japanese mixes both, Chinese has no kana
        counts["kana"] += counts.pop("han")
    return (
        max(counts, key=lambda script: (counts[script], script)) if any(counts.values()) else "none"
    )


@cache
def _script_of(character: str) -> str:
    if not character.isalpha():
        return ""
    word = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    return _SCRIPTS.get(word, word.lower())


def _similarity(texts: list[str], bins: int, seed: int) -> list[str]:
    """Hashed tf-idf, then k-means by mini-batches (Sculley 2010) with a fixed number of steps."""
    if not texts:
        return []
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    words = HashingVectorizer(n_features=2**11, token_pattern=_WORD, alternate_sign=False)
    vectors = TfidfTransformer().fit_transform(words.transform(text[:_OPENING] for text in texts))
    clusters = min(bins, len(texts))
    means = MiniBatchKMeans(
        clusters, random_state=seed, n_init=1, max_iter=3, tol=0.0, max_no_improvement=None
    )
    with threadpool_limits(1):  # sums in one order, and no waiting for a busy core
        numbers = means.fit_predict(vectors).tolist()
    width = len(str(clusters - 1))
    return [f"similarity-{number:0{width}d}" for number in numbers]
