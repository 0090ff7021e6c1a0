"""Scores of a text against its reference, and of a model against its held-out tokens."""

import re
import unicodedata
from collections import Counter

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
# Scripts written without spaces, one token a character: kana with its length mark, Han, 々 and 〇.
_UNSPACED = re.compile(
    "([\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)


def normalise(text: str) -> str:
    """The text in lower case without punctuation, symbols, English articles and spare white space.

    SQuAD's normalisation (arXiv 1606.05250, its evaluation script), over Unicode: NFKC and case
    folding, and every character of the categories P and S is dropped. A text of which this leaves
    nothing ("A", "+") keeps its articles, and then its signs, so that such answers still differ.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(c for c in folded if unicodedata.category(c)[0] not in "PS")
    bare = unicodedata.normalize("NFKC", kept)  # what stood apart may now be one letter
    for candidate in (_ARTICLES.sub(" ", bare), bare, folded):
        if words := candidate.split():
            return " ".join(words)
    return ""


def exact_match(prediction: str, reference: str) -> bool:
    """Whether both texts have the same tokens in the same order after `normalise`."""
    return _tokens(prediction) == _tokens(reference)


def token_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the bags of tokens, in [0, 1] (SQuAD's F1).

    Tokens are words, and single characters for Han and kana. Two empty texts score 1, one empty 0.
    """
    one, two = _tokens(prediction), _tokens(reference)
    if not one and not two:
        return 1.0
    shared = (Counter(one) & Counter(two)).total()
    return 2 * shared / (len(one) + len(two))


def _tokens(text: str) -> list[str]:
    return _UNSPACED.sub(r" \1 ", normalise(text)).split()
