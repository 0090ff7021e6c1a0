"""Opinions on everyday things: a noun and two adjectives that agree on whether it was liked."""

import hashlib

import numpy as np

from fedit.data.microworld.facts import Language
from fedit.data.microworld.tables import table

# thing | cosa | liked | gustó | disliked | no gustó (adjectives that fit any gender)
_NOUNS = table("""
    soup|la sopa
    hotel|el hotel
    film|la película
    book|el libro
    room|el cuarto
    concert|el concierto
    bread|el pan
    journey|el viaje
    phone|el teléfono
    garden|el jardín
    waiter|el servicio
    play|la obra
""")
_LIKED = table("""
    great|genial
    lovely|agradable
    excellent|excelente
    brilliant|brillante
    pleasant|increíble
    charming|admirable
    perfect|fenomenal
    wonderful|formidable
""")
_DISLIKED = table("""
    awful|horrible
    terrible|terrible
    boring|lamentable
    dreadful|fatal
    nasty|desagradable
    poor|deplorable
    horrid|insoportable
    useless|inútil
""")
_TOLD = {
    "en": ["The {thing} was {one} and {two}.", "A {one}, {two} {thing}.", "I found the {thing} {one}, even {two}."],
    "es": ["Me pareció {one} y {two} {thing}.", "Hubo algo {one} y {two}: {thing}."],
}  # fmt: skip


def review(rng: np.random.Generator, language: Language, part: str) -> tuple[str, bool]:
    """An opinion and whether it is praise; no opinion occurs in two parts of the world."""
    spanish = language == "es"
    while True:
        liked = bool(rng.random() < 0.5)
        words = _LIKED if liked else _DISLIKED
        one, two = (words[i][spanish] for i in rng.choice(len(words), 2, replace=False))
        thing = _NOUNS[int(rng.integers(len(_NOUNS)))][spanish]
        told = _TOLD[language][int(rng.integers(len(_TOLD[language])))]
        text = told.format(thing=thing, one=one, two=two)
        if review_part(text) == part:
            return text, liked


def review_part(text: str) -> str:
    """The part of the world in which an opinion stands: "corpus", "train", "dev" or "test"."""
    digest = hashlib.sha256(text.encode()).digest()[0]
    return ("corpus", "corpus", "train", "train", "dev", "test")[digest % 6]
