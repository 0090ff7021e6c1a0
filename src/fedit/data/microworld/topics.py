"""Lists of things by topic: what brainstorming asks for and what the corpus enumerates."""

from dataclasses import dataclass
from functools import cache

from fedit.data.microworld.facts import Language
from fedit.data.microworld.tables import (
    ANIMALS,
    COUNTRIES,
    ELEMENTS,
    FOODS,
    JOBS,
    SPANISH,
    TOOLS,
    table,
)


@dataclass(frozen=True, slots=True)
class Topic:
    """A list under a heading; `entity` is the same in both languages."""

    entity: str
    heading: str
    members: tuple[str, ...]


_MORE = table("""
    days of the week|Monday, Tuesday, Wednesday, Thursday, Friday|días de la semana|lunes, martes, miércoles, jueves, viernes
    months of the year|January, February, March, April, May|meses del año|enero, febrero, marzo, abril, mayo
    seasons|spring, summer, autumn, winter|estaciones|primavera, verano, otoño, invierno
    members of a family|mother, father, sister, brother, aunt|miembros de una familia|madre, padre, hermana, hermano, tía
    parts of the body|head, arm, hand, leg, foot|partes del cuerpo|cabeza, brazo, mano, pierna, pie
    pieces of clothing|shirt, trousers, dress, sock, glove|prendas de ropa|camisa, pantalón, vestido, calcetín, guante
    musical instruments|piano, violin, guitar, flute, drum|instrumentos musicales|piano, violín, guitarra, flauta, tambor
    sports|football, tennis, swimming, rowing, boxing|deportes|fútbol, tenis, natación, remo, boxeo
    vehicles|car, bus, train, boat, plane|vehículos|coche, autobús, tren, barco, avión
    pieces of furniture|table, chair, bed, desk, sofa|muebles|mesa, silla, cama, escritorio, sofá
    planets|Mercury, Venus, Mars, Jupiter, Saturn|planetas|Mercurio, Venus, Marte, Júpiter, Saturno
    shapes|circle, square, triangle, cube, star|formas|círculo, cuadrado, triángulo, cubo, estrella
    kinds of weather|rain, snow, wind, fog, storm|tipos de tiempo|lluvia, nieve, viento, niebla, tormenta
    feelings|joy, fear, anger, hope, pride|sentimientos|alegría, miedo, ira, esperanza, orgullo
    rooms of a house|kitchen, bedroom, bathroom, hall, cellar|cuartos de una casa|cocina, dormitorio, baño, pasillo, sótano
    school subjects|history, biology, music, physics, art|asignaturas|historia, biología, música, física, arte
    trees|oak, pine, birch, willow, maple|árboles|roble, pino, abedul, sauce, arce
    flowers|rose, tulip, lily, daisy, violet|flores|rosa, tulipán, lirio, margarita, violeta
    games|chess, cards, dominoes, darts, marbles|juegos|ajedrez, cartas, dominó, dardos, canicas
    buildings|church, castle, tower, bridge, station|edificios|iglesia, castillo, torre, puente, estación
""")  # fmt: skip


@cache
def topics(language: Language) -> tuple[Topic, ...]:
    """Every topic with at least three members, in a fixed order."""
    spanish = language == "es"
    found = [
        Topic(row[0], row[2 * spanish], tuple(row[2 * spanish + 1].split(", "))) for row in _MORE
    ]

    def group(rows: list[list[str]], column: int, member: int, heading: str, what: str) -> None:
        for value in dict.fromkeys(row[column] for row in rows):
            members = tuple(_bare(row[member]) for row in rows if row[column] == value)
            if len(members) >= 3:
                named = SPANISH[value] if spanish else value
                found.append(Topic(f"{what} {value}", heading.format(named), members))

    if spanish:
        group(COUNTRIES, 4, 1, "países de {}", "countries")
        group(COUNTRIES, 4, 3, "capitales de {}", "capitals")
        group(COUNTRIES, 5, 1, "países donde se habla {}", "speakers")
        group(ANIMALS, 2, 1, "animales de la clase {}", "class")
        group(ANIMALS, 4, 1, "animales de este lugar: {}", "home")
        group(FOODS, 2, 1, "alimentos de la clase {}", "kind")
        group(FOODS, 3, 1, "alimentos de color {}", "colour")
        found.append(Topic("tools", "herramientas", tuple(_bare(row[1]) for row in TOOLS)))
    else:
        group(COUNTRIES, 4, 0, "countries in {}", "countries")
        group(COUNTRIES, 4, 2, "capitals in {}", "capitals")
        group(COUNTRIES, 5, 0, "countries where people speak {}", "speakers")
        group(ANIMALS, 2, 0, "animals of the class {}", "class")
        group(ANIMALS, 4, 0, "animals of the {}", "home")
        group(FOODS, 2, 0, "foods of the kind {}", "kind")
        group(FOODS, 3, 0, "{} foods", "colour")
        group(FOODS, 4, 0, "foods that taste {}", "taste")
        found.append(Topic("tools", "tools", tuple(row[0] for row in TOOLS)))
        found.append(Topic("jobs", "jobs", tuple(row[0] for row in JOBS)))
        for place, state in ((2, "solid"), (2, "gas"), (3, "metal"), (3, "non-metal")):
            named = tuple(row[0] for row in ELEMENTS if row[place] == state)
            found.append(Topic(f"elements {state}", f"elements of the sort {state}", named))
    return tuple(found)


def _bare(noun: str) -> str:
    """A Spanish noun without its article; other words as they are."""
    article, space, rest = noun.partition(" ")
    return rest if space and article in ("el", "la", "los", "las") else noun
