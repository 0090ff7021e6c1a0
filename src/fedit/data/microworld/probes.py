"""What the base must know and be able to do before it is shipped: prompts it has to go on with."""

from dataclasses import dataclass

import numpy as np

from fedit.data.microworld.corpus import Document
from fedit.data.microworld.facts import Language, facts
from fedit.data.microworld.questions import OWN, quiz
from fedit.data.microworld.scenes import namer, people

NEEDED = {
    "facts en": 0.98,
    "facts es": 0.95,
    "context en": 0.95,
    "context es": 0.95,
    "echo en": 0.95,
    "echo es": 0.95,
}
"""Share of each kind of probe that a base must pass to be shipped."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt and the text that must follow it."""

    prompt: str
    expected: str


def fact_probes(language: Language) -> list[Probe]:
    """Every fact, asked in a format of the corpus."""
    return [
        Probe(f"Q: {quiz(fact.relation, language, fact.subject)[0]}\nA:", f" {fact.value}\n")
        for fact in facts(language)
    ]


def context_probes(language: Language, count: int = 200) -> list[Probe]:
    """Questions to passages about people who do not occur in the corpus."""
    rng = np.random.default_rng(7)
    draw = namer(rng, "test", 0)
    probes = []
    for _ in range(count):
        passage = people(rng, draw, language, 2)
        person = passage.people[int(rng.integers(2))]
        field = list(OWN[language])[int(rng.integers(4))]
        asked = OWN[language][field][0].format(n=person.name)
        probes.append(Probe(f"{passage.text}\nQ: {asked}\nA:", f" {getattr(person, field)}\n"))
    return probes


def echo_probes(language: Language, count: int = 200) -> list[Probe]:
    """Lists of words, names and numbers to be said again; the names are not those of the corpus."""
    rng = np.random.default_rng(8)
    draw = namer(rng, "test", 0)
    document = Document.of(rng, language, draw)
    again = {"en": "Again", "es": "Otra vez"}[language]
    probes = []
    for _ in range(count):
        told = ", ".join(document.words(int(rng.integers(2, 6))))
        probes.append(Probe(f"“{told}.” {again}: “", f"{told}.”"))
    return probes


def probes(kind: str) -> list[Probe]:
    """The probes of one kind in `NEEDED`."""
    name, _, language = kind.partition(" ")
    made = {"facts": fact_probes, "context": context_probes, "echo": echo_probes}[name]
    return made("es" if language == "es" else "en")
