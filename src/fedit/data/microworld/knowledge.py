"""Records answered from memory: open and general questions, classification, brainstorming."""

from functools import cache

from fedit.data.microworld.facts import Fact, Language, facts
from fedit.data.microworld.phrases import ASK, sentence
from fedit.data.microworld.records import Part, Record, Wordings, World, entity_part
from fedit.data.microworld.reviews import review
from fedit.data.microworld.scenes import a
from fedit.data.microworld.tables import ANIMALS, FOODS, TOOLS
from fedit.data.microworld.topics import topics

_GENERAL = ("legs", "taste", "state", "sort", "opposite")


def open_qa(world: World) -> Record:
    """A fact about a country, an animal, a food, an element, a tool or a job."""
    return _fact(world, [f for f in _facts(world) if f.relation not in _GENERAL])


def general_qa(world: World) -> Record:
    """Opposites, numbers of legs, tastes; is it true that …; two countries compared."""
    style = int(world.rng.integers(3))
    if style == 0:
        return _fact(world, [f for f in _facts(world) if f.relation in _GENERAL])
    return _true(world) if style == 1 else _same(world)


def _facts(world: World) -> list[Fact]:
    return _part_facts(world.language, world.part, world.seed)


@cache
def _part_facts(language: Language, part: Part, seed: int) -> list[Fact]:
    return [fact for fact in facts(language) if entity_part(fact.entity, seed) == part]


def _fact(world: World, known: list[Fact]) -> Record:
    fact = world.any(known)
    asked, wording = world.ask(ASK[fact.relation, fact.language])
    return Record(sentence(asked, fact.language, s=fact.subject), "", fact.value, wording)


_TRUE: dict[str, Wordings] = {
    "en": (
        ["Is {s} {a_v}?", "Is it true that {s} is {a_v}?"],
        "Somebody says that {s} is {a_v}. Is that right?",
    ),
    "es": (["¿Es {s} de la clase {v}?", "¿Es cierto que {s} es de la clase {v}?"],
           "Alguien dice que {s} es de la clase {v}. ¿Es verdad?"),
}  # fmt: skip


def _true(world: World) -> Record:
    known = [fact for fact in _facts(world) if fact.relation == "class"]
    fact, spanish = world.any(known), world.language == "es"
    claims = sorted({other.value for other in facts(world.language) if other.relation == "class"})
    claim = fact.value if world.rng.random() < 0.5 else world.any(claims)
    asked, wording = world.ask(_TRUE[world.language])
    instruction = sentence(asked, world.language, s=fact.subject, v=claim, a_v=a(claim))
    if spanish:
        response = f"{'Sí' if claim == fact.value else 'No'}, es de la clase {fact.value}."
    else:
        response = f"{'Yes' if claim == fact.value else 'No'}, it is {a(fact.value)}."
    return Record(instruction, "", response, wording)


_SAME: dict[str, Wordings] = {
    "en": (
        ["Are {one} and {two} on the same continent?", "Do {one} and {two} share a continent?"],
        "Compare the continents of {one} and {two}.",
    ),
    "es": (["¿Están {one} y {two} en el mismo continente?", "¿Comparten {one} y {two} continente?"],
           "Compara los continentes de {one} y {two}."),
}  # fmt: skip


def _same(world: World) -> Record:
    known = [fact for fact in _facts(world) if fact.relation == "continent"]
    one, two = world.some(known, 2)
    if world.rng.random() < 0.5:  # as often alike as not, where there are two alike
        alike = [fact for fact in known if fact.value == one.value and fact != one]
        two = world.any(alike) if alike else two
    asked, wording = world.ask(_SAME[world.language])
    instruction = asked.format(one=one.subject, two=two.subject)
    same = one.value == two.value
    if world.language == "es":
        apart = f"No, {one.subject} está en {one.value} y {two.subject} en {two.value}."
        response = f"Sí, los dos en {one.value}." if same else apart
    else:
        apart = f"No, {one.subject} is in {one.value} and {two.subject} in {two.value}."
        response = f"Yes, both in {one.value}." if same else apart
    return Record(instruction, "", response, wording)


_KINDS = {"en": ["animal", "food", "tool"], "es": ["animal", "alimento", "herramienta"]}
_PLURALS = {"en": ["animals", "foods", "tools"], "es": ["animales", "alimentos", "herramientas"]}
_KIND: dict[str, Wordings] = {
    "en": (["Is this an animal, a food or a tool: {s}?", "Classify as animal, food or tool: {s}."],
           "To which group does it belong, animal, food or tool: {s}?"),
    "es": (["¿Es un animal, un alimento o una herramienta: {s}?",
            "Clasifica como animal, alimento o herramienta: {s}."],
           "¿A qué grupo pertenece, animal, alimento o herramienta: {s}?"),
}  # fmt: skip
_PICK: dict[str, Wordings] = {
    "en": (["Which of these is a {kind}: {words}?", "Pick the {kind}: {words}."],
           "Only one of these is a {kind}. Which one: {words}?"),
    "es": (["¿Cuál de estos es {kind}: {words}?", "Elige lo que es {kind}: {words}."],
           "Solo uno de estos es {kind}. ¿Cuál: {words}?"),
}  # fmt: skip
_SORT: dict[str, Wordings] = {
    "en": (["Sort into {one} and {two}: {words}.", "Put these under {one} or {two}: {words}."],
           "Which are {one} and which are {two}: {words}?"),
    "es": (["Ordena en {one} y {two}: {words}.", "Reparte entre {one} y {two}: {words}."],
           "¿Cuáles son {one} y cuáles {two}: {words}?"),
}  # fmt: skip
_REVIEW: dict[str, Wordings] = {
    "en": (["Is this review good or bad?", "Classify the review as good or bad."],
           "Did the writer like it? Answer good or bad."),
    "es": (["¿Esta opinión es buena o mala?", "Clasifica la opinión como buena o mala."],
           "¿Le gustó al autor? Responde buena o mala."),
}  # fmt: skip


def classification(world: World) -> Record:
    """What kind of thing a word names, which word is of a kind, words sorted, opinions judged."""
    style, language = int(world.rng.integers(4)), world.language
    if style == 3:
        asked, wording = world.ask(_REVIEW[language])
        text, liked = review(world.rng, language, world.part)
        verdict = {"en": ("good", "bad"), "es": ("buena", "mala")}[language]
        return Record(asked, text, verdict[0] if liked else verdict[1], wording)
    things = [
        [row[language == "es"] for row in world.mine(rows, lambda row: row[0])]
        for rows in (ANIMALS, FOODS, TOOLS)
    ]
    first, second, third = world.some(range(3), 3)
    if style == 0:
        asked, wording = world.ask(_KIND[language])
        return Record(
            asked.format(s=world.any(things[first])), "", _KINDS[language][first], wording
        )
    if style == 1:
        asked, wording = world.ask(_PICK[language])
        words = [world.any(things[first]), *world.some(things[second], 1), world.any(things[third])]
        told = ", ".join(world.some(words, 3))
        return Record(asked.format(kind=_KINDS[language][first], words=told), "", words[0], wording)
    asked, wording = world.ask(_SORT[language])
    some, others = world.some(things[first], 2), world.some(things[second], 1)
    mixed = world.some(some + others, 3)
    one, two = _PLURALS[language][first], _PLURALS[language][second]
    kept = ", ".join(word for word in mixed if word in some)
    instruction = asked.format(one=one, two=two, words=", ".join(mixed))
    return Record(instruction, "", f"{one}: {kept}; {two}: {others[0]}", wording)


_THREE: dict[str, Wordings] = {
    "en": (["Name three of these: {t}.", "Give me three {t}.", "List three examples of {t}.",
            "I need three {t}. What do you suggest?", "What are three {t}?", "Suggest three {t}."],
           "Think of three {t}."),
    "es": (["Nombra tres de estos: {t}.", "Dame tres {t}.", "Haz una lista de tres {t}.",
            "Necesito tres {t}. ¿Qué propones?", "Sugiere tres {t}."],
           "Piensa en tres {t}."),
}  # fmt: skip


def brainstorming(world: World) -> Record:
    """Three members of a topic; the reference has the first ones, any three are right."""
    topic = world.any(world.mine(topics(world.language), lambda topic: topic.entity))
    asked, wording = world.ask(_THREE[world.language])
    check = "any 3 of " + " | ".join(topic.members)
    return Record(asked.format(t=topic.heading), "", ", ".join(topic.members[:3]), wording, check)
