"""Random people and events: passages nobody has read before, told in English or Spanish."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedit.data.microworld.facts import Language
from fedit.data.microworld.phrases import sentence
from fedit.data.microworld.tables import COUNTRIES, JOBS, table

Rng = np.random.Generator
Namer = Callable[[], str]
"""Draws a name."""

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_ENDINGS = ["", "", "", "n", "r", "s", "l"]
_PLACES = {row[i] for row in COUNTRIES for i in range(4)}
_DAYS = table("""
    Monday|lunes
    Tuesday|martes
    Wednesday|miércoles
    Thursday|jueves
    Friday|viernes
    Saturday|sábado
    Sunday|domingo
""")
_PETS = table("""
    dog|perro
    cat|gato
    rabbit|conejo
    parrot|loro
    horse|caballo
    hamster|hámster
    goat|burro
    canary|canario
""")
_THINGS = table("""
    lamp|espejo
    book|libro
    coat|abrigo
    ring|anillo
    clock|reloj
    map|mapa
    violin|violín
    hat|sombrero
    bag|bolso
    kite|cuadro
""")
_VEHICLES = table("""
    train|tren
    boat|barco
    bus|autobús
    plane|avión
    bicycle|bicicleta
    car|coche
""")
_FILLERS = {
    "en": [
        "It was raining.",
        "The sun was shining.",
        "The streets were full.",
        "Nobody was in a hurry.",
    ],
    "es": [
        "Estaba lloviendo.",
        "Brillaba el sol.",
        "Las calles estaban llenas.",
        "Nadie tenía prisa.",
    ],
}


def namer(rng: Rng, part: str, seed: int) -> Namer:
    """Draws made-up names of one part of the world: "corpus", "train", "dev" or "test".

    The corpus has half of all names to itself whatever the seed; the seed deals the others out to the rest.
    """

    def draw() -> str:
        while True:
            one, two = rng.choice(_SYLLABLES, 2)
            name = str(one + two + rng.choice(_ENDINGS)).capitalize()
            if name not in _PLACES and name_part(name, seed) == part:
                return name

    return draw


def name_part(name: str, seed: int) -> str:
    """The one part of the world in which a name occurs."""
    if _hash(name) % 2:
        return "corpus"
    return ("train", "train", "train", "dev", "test")[_hash(f"{seed} {name}") % 5]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def one(rng: Rng, rows: list[list[str]], language: Language) -> str:
    """A word of a two-language table."""
    return rows[int(rng.integers(len(rows)))][language == "es"]


def city(rng: Rng, language: Language) -> str:
    """A capital."""
    return COUNTRIES[int(rng.integers(len(COUNTRIES)))][3 if language == "es" else 2]


def a(noun: str) -> str:
    """The noun with its English article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody made up."""

    name: str
    job: str
    city: str
    age: str
    pet: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A text about people, in the order in which it names them."""

    text: str
    people: list[Person]


_PORTRAITS = {
    "en": [
        ["{n} is {a_job} from {city}.", "{n} is {age} years old and has {a_pet}."],
        ["{n} lives in {city}.", "{n} works as {a_job}, is {age} years old and keeps {a_pet}."],
        ["{n}, aged {age}, comes from {city}.", "{n} is {a_job} with {a_pet}."],
    ],
    "es": [
        ["{n} vive en {city} y trabaja de {job}.", "{n} tiene {age} años y un {pet}."],
        ["{n}, de {age} años, vive en {city}.", "{n} trabaja de {job} y tiene un {pet}."],
    ],
}


def people(rng: Rng, draw: Namer, language: Language, count: int) -> Passage:
    """A passage about this many people who share no job, city, age or pet."""
    met: list[Person] = []
    while len(met) < count:
        new = Person(
            draw(),
            JOBS[int(rng.integers(len(JOBS)))][language == "es"],
            city(rng, language),
            str(rng.integers(18, 90)),
            one(rng, _PETS, language),
        )
        if all(
            getattr(new, field) != getattr(old, field) for old in met for field in Person.__slots__
        ):
            met.append(new)
    patterns = _PORTRAITS[language]
    told = [
        pattern.format(
            n=p.name, job=p.job, a_job=a(p.job), city=p.city, age=p.age, pet=p.pet, a_pet=a(p.pet)
        )
        for p in met
        for pattern in patterns[int(rng.integers(len(patterns)))]
    ]
    return Passage(" ".join(told), met)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: its text, its one-sentence summary, and what stands in it by role."""

    kind: str
    text: str
    summary: str
    roles: dict[str, str]


_EVENTS = {
    "en": {
        "meeting": (
            ["{n} went for a walk in {city}.", "It was {day}.", "There {n} saw {m}.", "They drank tea together."],
            "{n} met {m} in {city} on {day}.",
        ),
        "purchase": (
            ["On {day} {n} visited the market in {city}.", "{n} wanted {a_thing}.", "The price was {number} coins.", "{n} paid."],
            "{n} bought {a_thing} for {number} coins in {city}.",
        ),
        "journey": (
            ["{n} left {city} on {day}.", "The {vehicle} was slow.", "At last {n} came to {town}."],
            "{n} went from {city} to {town} by {vehicle}.",
        ),
        "find": (
            ["{n} lost {a_thing} in {city}.", "On {day} {m} saw it on a bench.", "{m} gave it back."],
            "{m} found the {thing} of {n} in {city}.",
        ),
    },
    "es": {
        "meeting": (
            ["{n} dio un paseo por {city}.", "Era {day}.", "Allí {n} vio a {m}.", "Tomaron té juntos."],
            "{n} se encontró con {m} en {city} el {day}.",
        ),
        "purchase": (
            ["El {day} {n} visitó el mercado de {city}.", "{n} quería un {thing}.", "El precio era de {number} monedas.", "{n} pagó."],
            "{n} compró un {thing} por {number} monedas en {city}.",
        ),
        "journey": (
            ["{n} salió de {city} el {day}.", "Viajar en {vehicle} fue lento.", "Por fin {n} llegó a {town}."],
            "{n} fue de {city} a {town} en {vehicle}.",
        ),
    },
}  # fmt: skip


def event(rng: Rng, draw: Namer, language: Language, kind: str | None = None) -> Event:
    """Something that happened to one or two people."""
    kinds = list(_EVENTS[language])
    kind = kind or kinds[int(rng.integers(len(kinds)))]
    pattern, summary = _EVENTS[language][kind]
    thing = one(rng, _THINGS, language)
    roles = {
        "n": draw(),
        "m": draw(),
        "city": city(rng, language),
        "town": city(rng, language),
        "day": one(rng, _DAYS, language),
        "thing": thing,
        "a_thing": a(thing),
        "number": str(rng.integers(2, 100)),
        "vehicle": one(rng, _VEHICLES, language),
    }
    if roles["n"] == roles["m"] or roles["city"] == roles["town"]:
        return event(rng, draw, language, kind)
    sentences = [sentence(line, language, **roles) for line in pattern]
    fillers = _FILLERS[language]
    sentences.insert(int(rng.integers(1, len(sentences))), fillers[int(rng.integers(len(fillers)))])
    told = " ".join(pattern)
    named = {role: value for role, value in roles.items() if f"{{{role}}}" in told}
    return Event(kind, " ".join(sentences), summary.format(**roles), named)
