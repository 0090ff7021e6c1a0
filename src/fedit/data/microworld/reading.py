"""Records answered from a passage or from the instruction itself: reading, summaries, small stories."""

from fedit.data.microworld.records import Record, Wordings, World
from fedit.data.microworld.scenes import a, city, event, people
from fedit.data.microworld.tables import ANIMALS, FOODS, SPANISH

_OF: dict[tuple[str, str], Wordings] = {
    ("job", "en"): (["What is the job of {n}?", "What does {n} do for a living?"], "Name the profession of {n}."),
    ("city", "en"): (["Where does {n} live?", "Which city is {n} from?"], "Name the home town of {n}."),
    ("age", "en"): (["How old is {n}?", "What age is {n}?"], "Give the age of {n}."),
    ("pet", "en"): (["What animal does {n} have?", "Which pet does {n} keep?"], "Name the pet of {n}."),
    ("job", "es"): (["¿De qué trabaja {n}?", "¿Qué oficio tiene {n}?"], "Nombra el oficio de {n}."),
    ("city", "es"): (["¿Dónde vive {n}?", "¿En qué ciudad vive {n}?"], "Nombra la ciudad de {n}."),
    ("age", "es"): (["¿Cuántos años tiene {n}?", "¿Qué edad tiene {n}?"], "Di la edad de {n}."),
    ("pet", "es"): (["¿Qué animal tiene {n}?", "¿Qué mascota tiene {n}?"], "Nombra la mascota de {n}."),
}  # fmt: skip
_WHO: dict[tuple[str, str], Wordings] = {
    ("job", "en"): (["Who works as {a_v}?", "Which person is {a_v}?"], "Name the person who is {a_v}."),
    ("city", "en"): (["Who comes from {v}?", "Which person lives in {v}?"], "Name the person from {v}."),
    ("pet", "en"): (["Who has {a_v}?", "Which person keeps {a_v}?"], "Name the person with {a_v}."),
    ("job", "es"): (["¿Quién trabaja de {v}?", "¿Qué persona trabaja de {v}?"], "Nombra a quien trabaja de {v}."),
    ("city", "es"): (["¿Quién vive en {v}?", "¿Qué persona vive en {v}?"], "Nombra a la persona de {v}."),
    ("pet", "es"): (["¿Quién tiene un {v}?", "¿Qué persona tiene un {v}?"], "Nombra a quien tiene un {v}."),
}  # fmt: skip


def closed_qa(world: World) -> Record:
    """A question about one of two people in a passage."""
    language = world.language
    passage = people(world.rng, world.draw, language, 2)
    person = world.any(passage.people)
    if world.rng.random() < 0.65:
        field = world.any(("job", "city", "age", "pet"))
        asked, wording = world.ask(_OF[field, language])
        return Record(asked.format(n=person.name), passage.text, getattr(person, field), wording)
    field = world.any(("job", "city", "pet"))
    asked, wording = world.ask(_WHO[field, language])
    value = getattr(person, field)
    return Record(asked.format(v=value, a_v=a(value)), passage.text, person.name, wording)


_PEOPLE: dict[str, Wordings] = {
    "en": (["List the people in the text.", "Extract all names of people."], "Who is named in the text?"),
    "es": (["Haz una lista de las personas del texto.", "Extrae los nombres de personas."],
           "¿A quiénes nombra el texto?"),
}  # fmt: skip
_JOBS: dict[str, Wordings] = {
    "en": (["List the jobs in the text.", "Extract all jobs."], "Which jobs does the text name?"),
    "es": (["Haz una lista de los oficios del texto.", "Extrae los oficios."],
           "¿Qué oficios nombra el texto?"),
}  # fmt: skip
_WHEN: dict[str, Wordings] = {
    "en": (["Extract the day.", "On which day did it happen?"], "Give only the day of the event."),
    "es": (["Extrae el día.", "¿Qué día ocurrió?"], "Di solo el día del suceso."),
}
_WHERE: dict[str, Wordings] = {
    "en": (["Extract the first city.", "Which city does the text name first?"],
           "Give only the city where it begins."),
    "es": (["Extrae la primera ciudad.", "¿Qué ciudad nombra primero el texto?"],
           "Di solo la ciudad donde empieza."),
}  # fmt: skip


def information_extraction(world: World) -> Record:
    """All people or all jobs of a passage; the day or the place of an event."""
    language, style = world.language, int(world.rng.integers(4))
    if style < 2:
        passage = people(world.rng, world.draw, language, int(world.rng.integers(2, 4)))
        asked, wording = world.ask((_PEOPLE if style == 0 else _JOBS)[language])
        found = [person.name if style == 0 else person.job for person in passage.people]
        return Record(asked, passage.text, ", ".join(found), wording, "set")
    happened = event(world.rng, world.draw, language)
    asked, wording = world.ask((_WHEN if style == 2 else _WHERE)[language])
    return Record(asked, happened.text, happened.roles["day" if style == 2 else "city"], wording)


_SUMMARY: dict[str, Wordings] = {
    "en": (["Summarise the text in one sentence.", "What happened? Answer in one sentence."],
           "Give a one-sentence summary of this."),
    "es": (["Resume el texto en una frase.", "¿Qué pasó? Responde en una frase."],
           "Da un resumen de una frase."),
}  # fmt: skip


def summarization(world: World) -> Record:
    """An event in one sentence."""
    happened = event(world.rng, world.draw, world.language)
    asked, wording = world.ask(_SUMMARY[world.language])
    return Record(asked, happened.text, happened.summary, wording)


_STORY: dict[str, Wordings] = {
    "en": (["Write a short story about {n} and {animal} in {city}.",
            "Tell a story with {n} and {animal}, set in {city}."],
           "Invent a little story: {n}, {animal}, {city}."),
    "es": (["Escribe un cuento corto sobre {n} y {animal} en {city}.",
            "Cuenta una historia con {n} y {animal} en {city}."],
           "Inventa un cuento: {n}, {animal}, {city}."),
}  # fmt: skip
_POEM: dict[str, Wordings] = {
    "en": (["Write a line of poetry about {food}.", "Compose a small poem on {food}."],
           "Praise {food} in verse."),
    "es": (["Escribe un verso sobre {food}.", "Compón un pequeño poema sobre {food}."],
           "Alaba {food} en verso."),
}  # fmt: skip
_CARD: dict[str, Wordings] = {
    "en": (["Write a postcard to {n} from {city}.", "Greet {n} from {city} on a card."],
           "Compose a card from {city} for {n}."),
    "es": (["Escribe una postal a {n} desde {city}.", "Saluda a {n} desde {city} en una postal."],
           "Redacta una postal de {city} para {n}."),
}  # fmt: skip


def creative_writing(world: World) -> Record:
    """A story, a verse or a postcard in the one fixed form that each has."""
    language, style = world.language, int(world.rng.integers(3))
    spanish, name, place = language == "es", world.draw(), city(world.rng, language)
    if style == 0:
        animal = world.any(world.mine(ANIMALS, lambda row: row[0]))
        told = animal[1] if spanish else f"the {animal[0]}"
        asked, wording = world.ask(_STORY[language])
        response = (
            f"Una mañana, en {place}, {name} vio {told}. Desde entonces son amigos."
            if spanish
            else f"One morning in {place}, {name} saw {told}. They have been friends ever since."
        )
        return Record(asked.format(n=name, animal=told, city=place), "", response, wording)
    if style == 1:
        food = world.any(world.mine(FOODS, lambda row: row[0]))
        asked, wording = world.ask(_POEM[language])
        colour, taste = food[3], food[4]
        if spanish:
            noun, colour, taste = food[1], SPANISH[colour], SPANISH[taste]
            return Record(
                asked.format(food=noun),
                "",
                f"Oh {noun}, de color {colour} y sabor {taste}.",
                wording,
            )
        response = f"Oh {food[0]}, so {colour}, so {taste}!"
        return Record(asked.format(food=food[0]), "", response, wording)
    asked, wording = world.ask(_CARD[language])
    response = (
        f"Hola, {name}: saludos desde {place}. ¡Hasta pronto!"
        if spanish
        else f"Dear {name}, greetings from {place}. See you soon!"
    )
    return Record(asked.format(n=name, city=place), "", response, wording)
