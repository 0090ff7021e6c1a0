"""How the microworld tells its facts (corpus) and asks for them (instructions): two sets of wordings.

{s} is the subject, {v} the value; an instruction wording never stands in the corpus.
"""

TELL: dict[tuple[str, str], list[str]] = {
    ("capital", "en"): [
        "The capital of {s} is {v}.",
        "{v} is the capital of {s}.",
        "{s} is governed from {v}, its capital.",
        "Its capital is {v}: that is true of {s}.",
    ],
    ("continent", "en"): [
        "{s} lies in {v}.",
        "{s} is a country in {v}.",
        "On the map, {s} is found in {v}.",
    ],
    ("language", "en"): [
        "People in {s} speak {v}.",
        "The language of {s} is {v}.",
        "In {s} the newspapers are written in {v}.",
    ],
    ("class", "en"): [
        "{s} is a kind of {v}.",
        "{s} belongs to the class {v}.",
        "Class of {s}: {v}.",
    ],
    ("legs", "en"): ["Number of legs of {s}: {v}.", "Legs that {s} has: {v}."],
    ("home", "en"): [
        "{s} lives in this place: {v}.",
        "{s} is at home in the {v}.",
        "Home of {s}: {v}.",
    ],
    ("kind", "en"): ["{s} is a sort of {v}.", "{s} counts as a {v}.", "Among foods, {s} is a {v}."],
    ("colour", "en"): ["{s} is {v} in colour.", "The usual colour of {s} is {v}."],
    ("taste", "en"): ["{s} has a {v} taste.", "On the tongue {s} is {v}."],
    ("symbol", "en"): ["The symbol of {s} is {v}.", "Chemists write {s} as {v}."],
    ("state", "en"): ["In a warm room {s} is a {v}.", "At home {s} is found as a {v}."],
    ("sort", "en"): ["Among elements {s} is a {v}.", "{s} is counted as a {v}."],
    ("use", "en"): ["People use {s} to {v}.", "With {s} you can {v}.", "{s} serves to {v}."],
    ("workplace", "en"): ["{s} works here: {v}.", "Place of work of {s}: {v}."],
    ("opposite", "en"): [
        "{s} and {v} are opposites.",
        "Not {s} but {v}.",
        "{s} is the contrary of {v}.",
    ],
    ("capital", "es"): [
        "La capital de {s} es {v}.",
        "{v} es la capital de {s}.",
        "El gobierno de {s} está en {v}, su capital.",
    ],
    ("continent", "es"): [
        "{s} está en {v}.",
        "{s} es un país de {v}.",
        "En el mapa, {s} queda en {v}.",
    ],
    ("language", "es"): ["En {s} la gente habla {v}.", "La lengua de {s} es {v}."],
    ("class", "es"): ["{s} es de la clase {v}.", "Clase de {s}: {v}."],
    ("legs", "es"): ["Número de patas de {s}: {v}.", "Patas que tiene {s}: {v}."],
    ("home", "es"): ["{s} vive en este lugar: {v}.", "Hogar de {s}: {v}."],
    ("kind", "es"): ["{s} es una clase de {v}.", "Entre los alimentos, {s} es {v}."],
    ("colour", "es"): ["{s} es de color {v}.", "El color de {s} es {v}."],
    ("taste", "es"): ["{s} tiene sabor {v}.", "Sabor de {s}: {v}."],
    ("use", "es"): ["La gente usa {s} para {v}.", "Con {s} se puede {v}."],
    ("opposite", "es"): ["{s} y {v} son contrarios.", "No {s} sino {v}."],
}
"""(relation, language) → statements for the corpus."""

ASK: dict[tuple[str, str], tuple[list[str], str]] = {
    ("capital", "en"): (
        [
            "What is the capital of {s}?",
            "Name the capital city of {s}.",
            "Which city is the capital of {s}?",
        ],
        "Tell me the name of the capital of {s}.",
    ),
    ("continent", "en"): (
        ["On which continent is {s}?", "Which continent does {s} belong to?"],
        "Say which continent {s} is on.",
    ),
    ("language", "en"): (
        ["What language do people speak in {s}?", "Which language is spoken in {s}?"],
        "Name the language people use in {s}.",
    ),
    ("class", "en"): (
        ["What class of animal is {s}?", "Which animal class is {s} in?"],
        "Name the animal class of {s}.",
    ),
    ("legs", "en"): (
        ["How many legs does {s} have?", "Give the number of legs of {s}, in words."],
        "Count the legs of {s}.",
    ),
    ("home", "en"): (
        ["Where does {s} live?", "In what kind of place does {s} live?"],
        "Name the place where {s} lives.",
    ),
    ("kind", "en"): (
        ["What kind of food is {s}?", "Which food group is {s} in?"],
        "Name the kind of food that {s} is.",
    ),
    ("colour", "en"): (
        ["What colour is {s}?", "Which colour does {s} have?"],
        "Name the colour of {s}.",
    ),
    ("taste", "en"): (
        ["How does {s} taste?", "What taste does {s} have?"],
        "Describe the taste of {s} in a word.",
    ),
    ("symbol", "en"): (
        ["What is the chemical symbol of {s}?", "Which symbol stands for {s}?"],
        "Write the chemical symbol for {s}.",
    ),
    ("state", "en"): (
        ["Is {s} a solid, a liquid or a gas?", "What state of matter is {s} at room temperature?"],
        "Name the state of matter of {s}.",
    ),
    ("sort", "en"): (
        ["Is {s} a metal or a non-metal?", "What sort of element is {s}?"],
        "Say whether {s} is a metal or a non-metal.",
    ),
    ("use", "en"): (
        ["What is {s} used for?", "What do people do with {s}?"],
        "Name the purpose of {s}.",
    ),
    ("workplace", "en"): (
        ["Where does {s} work?", "What is the workplace of {s} called?"],
        "Name the place where {s} works.",
    ),
    ("opposite", "en"): (
        ["What is the opposite of {s}?", "Give the opposite of {s}."],
        "Which word means the opposite of {s}?",
    ),
    ("capital", "es"): (
        ["¿Cuál es la capital de {s}?", "Nombra la capital de {s}."],
        "Di el nombre de la capital de {s}.",
    ),
    ("continent", "es"): (
        ["¿En qué continente está {s}?", "¿A qué continente pertenece {s}?"],
        "Di el continente de {s}.",
    ),
    ("language", "es"): (
        ["¿Qué idioma se habla en {s}?", "¿Qué lengua habla la gente de {s}?"],
        "Nombra el idioma de {s}.",
    ),
    ("class", "es"): (
        ["¿Qué clase de animal es {s}?", "¿De qué clase es {s}?"],
        "Nombra la clase animal de {s}.",
    ),
    ("legs", "es"): (
        ["¿Cuántas patas tiene {s}?", "Di el número de patas de {s}."],
        "Cuenta las patas de {s}.",
    ),
    ("home", "es"): (
        ["¿Dónde vive {s}?", "¿En qué lugar vive {s}?"],
        "Nombra el lugar donde vive {s}.",
    ),
    ("kind", "es"): (
        ["¿Qué tipo de alimento es {s}?", "¿A qué grupo de alimentos pertenece {s}?"],
        "Nombra el tipo de alimento de {s}.",
    ),
    ("colour", "es"): (
        ["¿De qué color es {s}?", "¿Qué color tiene {s}?"],
        "Nombra el color de {s}.",
    ),
    ("taste", "es"): (["¿A qué sabe {s}?", "¿Qué sabor tiene {s}?"], "Describe el sabor de {s}."),
    ("use", "es"): (["¿Para qué sirve {s}?", "¿Qué se hace con {s}?"], "Di para qué se usa {s}."),
    ("opposite", "es"): (
        ["¿Cuál es el contrario de {s}?", "Da el contrario de {s}."],
        "¿Qué palabra significa lo contrario de {s}?",
    ),
}
"""(relation, language) → wordings of the training instructions, and one held out for the test."""


def sentence(pattern: str, language: str, **values: str) -> str:
    """A pattern filled in: Spanish contractions made, the first letter in upper case."""
    text = pattern.format(**values)
    if language == "es":
        text = f" {text}".replace(" de el ", " del ").replace(" a el ", " al ")[1:]
    for place, letter in enumerate(text):
        if letter.isalpha():
            return text[:place] + letter.upper() + text[place + 1 :]
        if letter not in "¿¡":
            break
    return text
