"""What the base reads before any tuning: documents of the microworld, without one instruction in them."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedit.data.microworld.facts import Fact, Language, facts
from fedit.data.microworld.phrases import TELL, sentence
from fedit.data.microworld.questions import ALL, HAPPENED, OWN, OWNER, quiz
from fedit.data.microworld.reviews import review
from fedit.data.microworld.scenes import Namer, Rng, event, namer, people
from fedit.data.microworld.topics import Topic, topics

T = TypeVar("T")

SPANISH_SHARE = 0.3
"""Of the documents; of the instructions it is less."""

_RECAP = {"en": ["In short:", "So:", "That is:"], "es": ["En resumen:", "O sea:", "Es decir:"]}
_HEADINGS = {
    "en": ["Notes", "News", "Diary", "Lexicon", "Letters"],
    "es": ["Notas", "Noticias", "Diario", "Léxico", "Cartas"],
}


@dataclass(frozen=True)
class Document:
    """What documents of one language are drawn from."""

    rng: Rng
    language: Language
    draw: Namer
    known: list[list[Fact]]
    lists: Sequence[Topic]

    @classmethod
    def of(cls, rng: Rng, language: Language, draw: Namer) -> "Document":
        """With all that there is in the language."""
        return cls(rng, language, draw, _by_entity(facts(language)), topics(language))

    def any(self, choices: list[str]) -> str:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def entity(self) -> list[Fact]:
        """All facts of one entity."""
        return self.known[int(self.rng.integers(len(self.known)))]

    def words(self, count: int) -> list[str]:
        """Distinct words of any kind: names, subjects and values of facts, numbers."""
        found: dict[str, None] = {}
        while len(found) < count:
            fact = self.any_fact()
            kinds = (self.draw(), fact.subject, fact.value, str(self.rng.integers(2, 100)))
            found[kinds[int(self.rng.integers(4))]] = None
        return list(found)

    def any_fact(self) -> Fact:
        """One fact."""
        of = self.entity()
        return of[int(self.rng.integers(len(of)))]

    def shuffled(self, things: Sequence[T]) -> list[T]:
        """All of the things in random order."""
        return [things[i] for i in self.rng.permutation(len(things))]

    def answered(self, asked: Sequence[tuple[tuple[str, str], str]]) -> str:
        """Questions and answers in one of the corpus' formats, which no instruction has."""
        style = int(self.rng.integers(8))
        phrases = [(phrase, value) for (phrase, _), value in asked]
        questions = [(question, value) for (_, question), value in asked]
        if style == 0:
            return "\n".join(f"Q: {q}\nA: {v}" for q, v in phrases)
        if style == 1:
            return "\n".join(f"- {q}: {v}" for q, v in phrases)
        if style == 2:
            return " ".join(f"{q[0].upper()}{q[1:]}? {v}." for q, v in phrases)
        if style == 3:
            return "\n".join(f"{q} = {v}" for q, v in phrases)
        if style == 4:
            return "\n".join(f"“{q}” – “{v}.”" for q, v in questions)
        if style == 5:
            return " ".join(f"{q} {v}." for q, v in questions)
        if style == 6:
            return "\n".join(f"{q}\n> {v}" for q, v in questions)
        return "\n".join(f"Q: {q}\nA: {v}" for q, v in questions)


def _by_entity(found: Sequence[Fact]) -> list[list[Fact]]:
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in found:
        groups[fact.entity].append(fact)
    return list(groups.values())


def _told(document: Document) -> str:
    """All that is known of one entity or two, in sentences."""
    lines = []
    for _ in range(int(document.rng.integers(1, 3))):
        for fact in document.shuffled(document.entity()):
            pattern = document.any(TELL[fact.relation, fact.language])
            lines.append(sentence(pattern, fact.language, s=fact.subject, v=fact.value))
    return " ".join(lines)


def _quizzed(document: Document) -> str:
    """Facts as questions with their answers."""
    chosen = [document.any_fact() for _ in range(int(document.rng.integers(1, 5)))]
    return document.answered([(quiz(f.relation, f.language, f.subject), f.value) for f in chosen])


def _copied(document: Document) -> str:
    """Words said twice, or the second half of what was said."""
    words = document.words(int(document.rng.integers(2, 8)))
    joint = (" ", ", ", "; ", " – ")[int(document.rng.integers(4))]
    told = joint.join(words)
    style = int(document.rng.integers(3))
    if style == 0:
        return f"{told}\n{told}"
    if style == 1:
        again = {"en": "Again", "es": "Otra vez"}[document.language]
        return f"“{told}.” {again}: “{told}.”"
    return f"{told}. {told}. {told}."


def _looked_up(document: Document) -> str:
    """A small dictionary, then questions to it."""
    words = document.words(2 * int(document.rng.integers(2, 6)))
    pairs = list(zip(words[::2], words[1::2], strict=True))
    told = "; ".join(f"{one}: {other}" for one, other in pairs)
    asked = document.shuffled(pairs)[: int(document.rng.integers(1, 4))]
    return told + ".\n" + document.answered([((one, f"{one}?"), other) for one, other in asked])


def _portrayed(document: Document) -> str:
    """People, then what they do, where they live, and who it is that does."""
    passage = people(
        document.rng, document.draw, document.language, int(document.rng.integers(1, 4))
    )
    pairs = [
        (_filled(asked, n=person.name), getattr(person, field))
        for person in passage.people
        for field, asked in OWN[document.language].items()
    ] + [
        (_filled(asked, v=getattr(person, field)), person.name)
        for person in passage.people
        for field, asked in OWNER[document.language].items()
    ]
    asked = document.shuffled(pairs)[: int(document.rng.integers(1, 6))]
    if document.rng.random() < 0.4:
        field, every = document.shuffled(list(ALL[document.language].items()))[0]
        asked.append((every, ", ".join(getattr(person, field) for person in passage.people)))
    return passage.text + "\n" + document.answered(asked)


def _filled(asked: tuple[str, str], **values: str) -> tuple[str, str]:
    phrase, question = asked
    return phrase.format(**values), question.format(**values)


def _happened(document: Document) -> str:
    """An event, its summary, and what it tells."""
    found = event(document.rng, document.draw, document.language)
    roles = HAPPENED[document.language]
    pairs = [(roles[role], value) for role, value in found.roles.items() if role in roles]
    asked = document.answered(document.shuffled(pairs)[: int(document.rng.integers(1, 4))])
    summary = f"{document.any(_RECAP[document.language])} {found.summary}"
    style = int(document.rng.integers(3))
    return found.text + ((" " + summary), ("\n" + asked), (" " + summary + "\n" + asked))[style]


def _listed(document: Document) -> str:
    """Members of one topic or two, often in the order of the tables."""
    lines = []
    for _ in range(int(document.rng.integers(1, 3))):
        topic = document.lists[int(document.rng.integers(len(document.lists)))]
        members = list(topic.members)
        if document.rng.random() < 0.5:
            members = document.shuffled(members)
        shown = ", ".join(members[: int(document.rng.integers(3, 7))])
        lines.append(f"{topic.heading[0].upper()}{topic.heading[1:]}: {shown}.")
    return "\n".join(lines)


def _sorted(document: Document) -> str:
    """Members of two topics mixed up, then put in order."""
    first, second = (
        document.lists[i] for i in document.rng.choice(len(document.lists), 2, replace=False)
    )
    some = document.shuffled(list(first.members))[:2]
    others = [x for x in document.shuffled(list(second.members)) if x not in first.members][:2]
    mixed = document.shuffled(some + others)
    kept = [", ".join(x for x in mixed if x in part) for part in (some, others)]
    return f"{', '.join(mixed)}.\n{first.heading}: {kept[0]}\n{second.heading}: {kept[1]}"


def _reviewed(document: Document) -> str:
    """Opinions, each with its verdict."""
    told = [
        review(document.rng, document.language, "corpus")
        for _ in range(int(document.rng.integers(1, 4)))
    ]
    good = {"en": ("praise", "complaint"), "es": ("elogio", "queja")}[document.language]
    return "\n".join(f"{text} ({good[0] if liked else good[1]})" for text, liked in told)


_KINDS: dict[str, Callable[[Document], str]] = {
    "told": _told,
    "quizzed": _quizzed,
    "copied": _copied,
    "looked_up": _looked_up,
    "portrayed": _portrayed,
    "happened": _happened,
    "listed": _listed,
    "sorted": _sorted,
    "reviewed": _reviewed,
}
_WEIGHTS = {
    "told": 0.14,
    "quizzed": 0.10,
    "copied": 0.18,
    "looked_up": 0.12,
    "portrayed": 0.20,
    "happened": 0.10,
    "listed": 0.08,
    "sorted": 0.05,
    "reviewed": 0.03,
}
"""Share of each kind of document."""


def corpus(seed: int = 0) -> Iterator[str]:
    """Documents for ever, the same ones for the same seed."""
    rng = np.random.default_rng([seed, 17])
    draw = namer(rng, "corpus", 0)
    in_language = {language: Document.of(rng, language, draw) for language in ("en", "es")}
    kinds = list(_WEIGHTS)
    weights = np.array(list(_WEIGHTS.values())) / sum(_WEIGHTS.values())
    while True:
        document = in_language["es" if rng.random() < SPANISH_SHARE else "en"]
        kind = kinds[int(rng.choice(len(kinds), p=weights))]
        text = _KINDS[kind](document)
        if rng.random() < 0.05:
            text = f"### {document.any(_HEADINGS[document.language])}:\n{text}"
        yield text
