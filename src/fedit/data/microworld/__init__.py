"""The embedded default: a small world of public facts and made-up people, with tasks about it.

`microworld` makes instruction records in Dolly's eight categories, in English and (rarely) Spanish, each
with one exact answer; `corpus` what the base model was trained on before. A record's entities and names,
and the wordings of a fifth of dev and test, occur in no other part.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from fedit.core.errors import InputError
from fedit.core.examples import Example, Turn
from fedit.data.microworld import knowledge, reading
from fedit.data.microworld.facts import Language
from fedit.data.microworld.records import PARTS, Part, Record, World
from fedit.data.microworld.scenes import namer

CATEGORIES: dict[str, Callable[[World], Record]] = {
    "brainstorming": knowledge.brainstorming,
    "classification": knowledge.classification,
    "closed_qa": reading.closed_qa,
    "creative_writing": reading.creative_writing,
    "general_qa": knowledge.general_qa,
    "information_extraction": reading.information_extraction,
    "open_qa": knowledge.open_qa,
    "summarization": reading.summarization,
}
COUNTS: dict[Part, dict[Language, int]] = {
    "train": {"en": 600, "es": 80},
    "dev": {"en": 26, "es": 6},
    "test": {"en": 42, "es": 10},
}
"""Records of each category, by part and language."""
_PATIENCE = 60  # repeats in a row: then a category has said all it can


def microworld(part: str = "train", seed: int = 0) -> list[Example]:
    """The records of one part ("train", "dev", "test"), in an order drawn from `seed`.

    `seed` makes another world of the same kind: other people and events, other entities asked about in the
    test. Labels: category, language, domain (language and category), wording (seen or new), and check where
    more than one answer is right. Raises InputError for an unknown part.
    """
    return list(_made(part, seed))


@cache
def _made(part: str, seed: int) -> tuple[Example, ...]:
    if part not in PARTS:
        raise InputError(f"microworld: there is no part {part!r}; there are {', '.join(PARTS)}")
    rng = np.random.default_rng([seed, PARTS.index(part)])
    examples: dict[tuple[str, str], Example] = {}
    for category, make in CATEGORIES.items():
        for language, count in COUNTS[part].items():
            world = World(rng, seed, part, language, namer(rng, part, seed))
            goal, repeats = len(examples) + count, 0
            while len(examples) < goal and repeats < _PATIENCE:
                record, before = make(world), len(examples)
                key = (record.instruction, record.context)
                examples.setdefault(
                    key, _example(record, category, language, f"{part}:{before + 1}")
                )
                repeats = repeats + 1 if len(examples) == before else 0
    found = list(examples.values())
    return tuple(found[i] for i in rng.permutation(len(found)))


def _example(record: Record, category: str, language: str, place: str) -> Example:
    labels = {
        "category": category,
        "language": language,
        "domain": f"{language} {category}",
        "wording": record.wording,
        "file": "microworld",
    }
    if record.check:
        labels["check"] = record.check
    turns = (
        Turn("user", record.instruction, record.context),
        Turn("assistant", record.response),
    )
    return Example(turns, labels, f"microworld {place}")
