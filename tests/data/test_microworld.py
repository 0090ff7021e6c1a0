"""The embedded world: complete, the same every time, and without a leak from one part to another."""

import re
from collections import Counter
from functools import cache
from itertools import chain, islice, pairwise, permutations
from pathlib import Path

import pytest

from fedit.core.errors import InputError
from fedit.core.examples import Example
from fedit.data.microworld import CATEGORIES, COUNTS
from fedit.data.microworld import microworld as make
from fedit.data.microworld.corpus import corpus
from fedit.data.microworld.facts import facts
from fedit.data.microworld.files import write_microworld
from fedit.data.microworld.phrases import ASK, TELL
from fedit.data.microworld.questions import QUIZ, WONDER
from fedit.data.microworld.records import PARTS, entity_part
from fedit.data.microworld.reviews import review_part
from fedit.data.microworld.scenes import name_part
from fedit.data.microworld.tables import OPPOSITES
from fedit.data.microworld.topics import topics
from fedit.data.sources import read_source
from fedit.evaluate.checks import correct

SEEDS = (0, 7)
microworld = cache(make)
NAME = re.compile(r"\b(?:[BDFGKLMNPRSTVZ][aeiou]){1}[bdfgklmnprstvz][aeiou][nrsl]?\b")


def text(example: Example) -> str:
    return f"{example.turns[0].text}\n{example.turns[0].context}\n{example.answer}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("part", PARTS)
def test_every_category_has_its_records_in_both_languages(part: str, seed: int) -> None:
    found = Counter((e.labels["category"], e.labels["language"]) for e in microworld(part, seed))
    assert set(found) == {(c, language) for c in CATEGORIES for language in ("en", "es")}
    for (category, language), count in found.items():
        wanted = COUNTS[part][language]
        few = category in ("brainstorming", "open_qa") and part == "train"  # so many can be asked
        assert count == wanted or (few and count >= 200)


def test_a_test_has_fifty_items_a_category() -> None:
    found = Counter(example.labels["category"] for example in microworld("test"))
    assert min(found[category] for category in CATEGORIES) >= 50


def test_the_same_seed_makes_the_same_world_and_another_one_another() -> None:
    assert microworld("train") == make("train", 0)
    first, other = ({text(e) for e in microworld("test", seed)} for seed in SEEDS)
    assert len(first & other) < 0.2 * len(first)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_record_stands_in_two_parts(seed: int) -> None:
    for one, other in permutations(PARTS, 2):
        asked = {e.turns[0] for e in microworld(one, seed)}
        assert asked.isdisjoint(e.turns[0] for e in microworld(other, seed))
        contexts = {e.turns[0].context for e in microworld(one, seed)} - {""}
        assert contexts.isdisjoint(e.turns[0].context for e in microworld(other, seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("part", PARTS)
def test_names_and_opinions_stay_in_their_part(part: str, seed: int) -> None:
    names = set(chain.from_iterable(NAME.findall(text(e)) for e in microworld(part, seed)))
    places = {f.value for f in facts("en") + facts("es")} | {f.subject for f in facts("en")}
    assert len(names) > 100
    made_up = {name for name in names - places if name_part(name, seed) != part}
    assert made_up <= {"Bator", "Dame", "Give", "Name", "Para", "Solo", "Venus"}  # real words
    for example in microworld(part, seed):
        if "opinión" in example.turns[0].text or "review" in example.turns[0].text:
            assert review_part(example.turns[0].context) == part


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_test_asks_about_training_never_asks_about(seed: int) -> None:
    """Whole entities are held out, so neither a fact nor its converse can leak."""
    known = {(f.language, f.subject.lower()): f.entity for f in facts("en") + facts("es")}
    for part in PARTS:
        for example in microworld(part, seed):
            if example.labels["category"] not in ("open_qa", "general_qa"):
                continue
            words = re.findall(r"\w+", example.turns[0].text.lower())
            pairs = [f"{one} {two}" for one, two in pairwise(words)]
            for subject in (*words, *pairs):
                entity = known.get((example.labels["language"], subject))
                if entity and len(subject) > 5:
                    assert entity_part(entity, seed) == part, (part, words)


def test_opposites_are_held_out_both_ways() -> None:
    entities = {(f.subject, f.value): f.entity for f in facts("en") if f.relation == "opposite"}
    for one, other, *_ in OPPOSITES:
        assert entities[one, other] == entities[other, one]


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(chain.from_iterable(islice(corpus(seed), 2_000) for seed in (0, 1)))


def sentences(told: str) -> list[str]:
    return re.split(r"(?<=[.!?]) |\n", told)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_of_a_passage_and_no_instruction_stands_in_the_corpus(
    documents: list[str], seed: int
) -> None:
    read = {sentence for document in documents for sentence in sentences(document)}
    for part in PARTS:
        for example in microworld(part, seed):
            turn = example.turns[0]
            assert turn.text not in read
            about = [sentence for sentence in sentences(turn.context) if NAME.search(sentence)]
            assert read.isdisjoint(about)


def test_the_corpus_has_names_of_its_own(documents: list[str]) -> None:
    found = set(chain.from_iterable(NAME.findall(document) for document in documents))
    real = {word.capitalize() for word in re.findall(r"\w+", " ".join(listed()))}
    assert len(found) > 1000
    assert {name for name in found - real if name_part(name, 0) != "corpus"} == set()


def listed() -> list[str]:
    """The words of the tables and wordings: some look like made-up names."""
    told = [*chain.from_iterable(TELL.values()), "Notes"]
    told += [f"{f.subject} {f.value}" for f in facts("en") + facts("es")]
    return told + [f"{t.heading} {' '.join(t.members)}" for t in topics("en") + topics("es")]


def test_the_corpus_holds_no_instruction_format(documents: list[str]) -> None:
    assert not [d for d in documents if "nstruction" in d or "esponse" in d]
    told = {wording for wordings in TELL.values() for wording in wordings}
    told |= {asked for of in (QUIZ, WONDER) for asks in of.values() for asked in asks.values()}
    for known, held_out in ASK.values():
        assert held_out not in known
        assert not told & {*known, held_out}


def test_new_wordings_are_not_in_training() -> None:
    train = " ".join(e.turns[0].text for e in microworld("train"))
    new = [e for e in microworld("test") if e.labels["wording"] == "new"]
    assert 0.1 < len(new) / len(microworld("test")) < 0.3
    for example in new:
        opening = " ".join(example.turns[0].text.split()[:3])
        if example.labels["category"] == "closed_qa" and example.labels["language"] == "en":
            assert not re.search(rf"{re.escape(opening)} of \w+", train) or "of" in opening


@pytest.mark.parametrize("part", PARTS)
def test_every_reference_passes_its_own_check(part: str) -> None:
    for example in microworld(part):
        assert correct(example.answer, example.answer, example.labels.get("check"))
    checks = Counter(e.labels.get("check", "")[:5] for e in microworld(part))
    assert all(checks[rule] for rule in ("any 3", "set", ""))


def test_it_is_a_source_like_any_other() -> None:
    source = read_source("microworld", split="dev", revision="3")
    assert source.examples == microworld("dev", 3)
    assert list(source.files) == ["microworld dev"]
    with pytest.raises(InputError, match=r"data\.revision: 'main' is no seed"):
        read_source("microworld", revision="main")
    with pytest.raises(InputError, match="no part 'validation'; there are train, dev, test"):
        read_source("microworld", split="validation")
    with pytest.raises(InputError, match=r"data\.columns"):
        read_source("microworld", mapping={"instruction": "a", "response": "b"})


def test_written_down_and_read_back_it_is_the_same_world(tmp_path: Path) -> None:
    written = dict(write_microworld(tmp_path / "world", 7, 20))
    assert [path.name for path in written] == [
        "train.jsonl",
        "dev.jsonl",
        "test.jsonl",
        "corpus.jsonl",
    ]
    again = read_source(str(tmp_path / "world" / "test.jsonl")).examples
    for row, example in zip(again, microworld("test", 7), strict=True):
        assert row.turns == example.turns
        assert {**row.labels, "file": ""} == {**example.labels, "file": ""}
    with pytest.raises(InputError, match="is not empty"):
        list(write_microworld(tmp_path / "world", 7, 20))
