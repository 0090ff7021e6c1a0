"""What the corpus asks, as a noun phrase and as a question, in words that no instruction has."""

QUIZ = {
    "en": {
        "capital": "capital of {s}",
        "continent": "part of the world where {s} is",
        "language": "language of {s}",
        "class": "class of {s}",
        "legs": "legs of {s}",
        "home": "home of {s}",
        "kind": "kind of food {s} is",
        "colour": "colour of {s}",
        "taste": "taste of {s}",
        "symbol": "symbol of {s}",
        "state": "state of {s}",
        "sort": "sort of element {s} is",
        "use": "use of {s}",
        "workplace": "workplace of {s}",
        "opposite": "contrary of {s}",
    },
    "es": {
        "capital": "capital de {s}",
        "continent": "continente de {s}",
        "language": "lengua de {s}",
        "class": "clase de {s}",
        "legs": "patas de {s}",
        "home": "hogar de {s}",
        "kind": "clase de alimento de {s}",
        "colour": "color de {s}",
        "taste": "sabor de {s}",
        "use": "uso de {s}",
        "opposite": "contrario de {s}",
    },
}
"""Relation by language as a noun phrase, for the corpus' own question formats."""

WONDER = {
    "en": {
        "capital": "What is {s}'s capital?",
        "continent": "In which part of the world is {s}?",
        "language": "What is spoken in {s}?",
        "class": "What sort of animal is {s}?",
        "legs": "How many legs are on {s}?",
        "home": "Where is {s} at home?",
        "kind": "What sort of food is {s}?",
        "colour": "What is the colour of {s}?",
        "taste": "What is the taste of {s}?",
        "symbol": "How do chemists write {s}?",
        "state": "What is {s} in a warm room?",
        "sort": "Which sort of element would {s} be?",
        "use": "What does {s} serve for?",
        "workplace": "Where is {s} at work?",
        "opposite": "What is the contrary of {s}?",
    },
    "es": {
        "capital": "¿Qué capital tiene {s}?",
        "continent": "¿En qué parte del mundo queda {s}?",
        "language": "¿Qué habla la gente en {s}?",
        "class": "¿Qué clase animal tiene {s}?",
        "legs": "¿Cuántas son las patas de {s}?",
        "home": "¿Cuál es el hogar de {s}?",
        "kind": "¿Qué alimento es {s}?",
        "colour": "¿Cuál es el color de {s}?",
        "taste": "¿Cuál es el sabor de {s}?",
        "use": "¿Qué uso tiene {s}?",
        "opposite": "¿Qué es lo contrario de {s}?",
    },
}
"""Relation by language as a question, in words that no instruction has."""

OWN = {
    "en": {
        "job": ("job of {n}", "What work does {n} do?"),
        "city": ("city of {n}", "Where is {n}'s home?"),
        "age": ("age of {n}", "How many years old is {n}?"),
        "pet": ("pet of {n}", "What pet has {n}?"),
    },
    "es": {
        "job": ("oficio de {n}", "¿En qué trabaja {n}?"),
        "city": ("ciudad de {n}", "¿Dónde está la casa de {n}?"),
        "age": ("edad de {n}", "¿Cuántos son los años de {n}?"),
        "pet": ("mascota de {n}", "¿Qué mascota es la de {n}?"),
    },
}
"""What the corpus asks about a person: as a noun phrase and as a question."""
OWNER = {
    "en": {
        "job": ("the {v}", "Who is the {v}?"),
        "city": ("the one from {v}", "Who is the one from {v}?"),
        "pet": ("owner of the {v}", "Who is the owner of the {v}?"),
    },
    "es": {
        "job": ("el {v}", "¿Quién es el {v}?"),
        "city": ("el de {v}", "¿Quién es el de {v}?"),
        "pet": ("dueño del {v}", "¿De quién es el {v}?"),
    },
}
ALL = {
    "en": {"name": ("names", "Who are they?"), "job": ("jobs", "What are their jobs?")},
    "es": {"name": ("nombres", "¿Quiénes son?"), "job": ("oficios", "¿Cuáles son sus oficios?")},
}
HAPPENED = {
    "en": {
        "n": ("first name", "Who was it?"),
        "m": ("other name", "Who else was there?"),
        "city": ("place", "Where was it?"),
        "day": ("day", "When was it?"),
        "number": ("coins", "How many coins was it?"),
        "town": ("end", "Where did it end?"),
        "vehicle": ("means", "By what means?"),
        "thing": ("object", "What thing was it?"),
    },
    "es": {
        "n": ("primer nombre", "¿Quién era?"),
        "m": ("otro nombre", "¿Quién más estaba?"),
        "city": ("lugar", "¿Dónde era?"),
        "day": ("día", "¿Cuándo era?"),
        "number": ("monedas", "¿Cuántas monedas eran?"),
        "town": ("final", "¿Dónde terminó?"),
        "vehicle": ("medio", "¿Por qué medio?"),
        "thing": ("objeto", "¿Qué objeto era?"),
    },
}


def quiz(relation: str, language: str, subject: str) -> tuple[str, str]:
    """What the corpus asks of a subject: as a noun phrase and as a question."""
    asked = (of[language][relation].format(s=subject) for of in (QUIZ, WONDER))
    phrase, question = (q.replace("de el ", "del ") if language == "es" else q for q in asked)
    return phrase, question
