"""A small sample written for this repository: 480 short instruction records over public facts.

They stand in Dolly's eight categories, 60 in each, with short exact answers; people, tickets and
visits are made up.
"""

from itertools import product

from fedit.core.examples import Example, Turn
from fedit.core.seeds import generator

Record = tuple[str, str, str]  # instruction, context, response


def _table(text: str) -> list[list[str]]:
    return [entry.split() for entry in text.split(",")]


_CAPITALS = _table("""
    Austria Vienna Europe, Belgium Brussels Europe, Bulgaria Sofia Europe,
    Denmark Copenhagen Europe, Finland Helsinki Europe, France Paris Europe, Greece Athens Europe,
    Hungary Budapest Europe, Iceland Reykjavik Europe, Ireland Dublin Europe, Italy Rome Europe,
    Norway Oslo Europe, Poland Warsaw Europe, Portugal Lisbon Europe, Spain Madrid Europe,
    Sweden Stockholm Europe, Canada Ottawa America, Chile Santiago America, Cuba Havana America,
    Peru Lima America, China Beijing Asia, India Delhi Asia, Japan Tokyo Asia,
    Nepal Kathmandu Asia, Thailand Bangkok Asia, Vietnam Hanoi Asia, Egypt Cairo Africa,
    Ghana Accra Africa, Kenya Nairobi Africa, Senegal Dakar Africa""")
_OPPOSITES = _table("""
    hot cold, big small, early late, open closed, full empty, fast slow, high low, light dark,
    wet dry, old new, hard soft, loud quiet, rich poor, strong weak, true false, thick thin,
    near far, clean dirty, deep shallow, wide narrow, first last, left right, up down,
    cheap expensive, sweet bitter, happy sad, long short, easy difficult, safe dangerous,
    inside outside""")
_YOUNG = _table("""
    dog puppy, cat kitten, cow calf, horse foal, sheep lamb, goat kid, pig piglet, lion cub,
    deer fawn, kangaroo joey, duck duckling, goose gosling, swan cygnet, owl owlet, hen chick,
    frog tadpole, butterfly caterpillar, seal pup""")
_ANIMALS = _table("""
    eagle bird, robin bird, penguin bird, sparrow bird, parrot bird, heron bird, crow bird,
    owl bird, salmon fish, trout fish, shark fish, tuna fish, cod fish, herring fish, carp fish,
    eel fish, ant insect, bee insect, beetle insect, moth insect, wasp insect, fly insect,
    cricket insect, whale mammal, bat mammal, bear mammal, fox mammal, wolf mammal, mouse mammal,
    otter mammal""")
_SEASONS = {"winter": "snow", "spring": "blossom", "summer": "sunshine", "autumn": "falling leaves"}
_GIFTS = _table("""
    chess chessboard, painting paintbox, cooking cookbook, hiking rucksack, music drum,
    gardening spade""")
_MONTHS = _table("""
    January, February, March, April, May, June, July, August, September, October, November,
    December""")
_DAYS = _table("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
_PEOPLE = _table("Ada,Ben,Cleo,Dan,Eva,Finn,Gita,Hugo,Ines,Jonas,Kira,Leo,Mona,Nils,Olga")
_JOBS = _table("baker,teacher,nurse,farmer,pilot,painter,carpenter,librarian,dentist,gardener")


def sample(seed: int = 0) -> list[Example]:
    """The 480 examples, all distinct, in an order drawn from `seed`; label `category`."""
    made = (
        ("brainstorming", _brainstorming()),
        ("classification", _classification()),
        ("closed_qa", _closed_qa()),
        ("creative_writing", _creative_writing()),
        ("general_qa", _general_qa()),
        ("information_extraction", _information_extraction()),
        ("open_qa", _open_qa()),
        ("summarization", _summarization()),
    )
    records = [(category, *record) for category, group in made for record in group]
    examples = []
    for number, row in enumerate(generator(seed, "sample").permutation(len(records)), start=1):
        category, instruction, context, response = records[row]
        turns = (Turn("user", instruction, context), Turn("assistant", response))
        labels = {"category": category, "file": "sample"}
        examples.append(Example(turns, labels, f"sample:{number}"))
    return examples


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _brainstorming() -> list[Record]:
    return [
        (f"Suggest a gift for {_a(job)} who likes {hobby}.", "", _a(gift).capitalize())
        for [job], [hobby, gift] in product(_JOBS, _GIFTS)
    ]


def _classification() -> list[Record]:
    kinds = "a bird, a fish, an insect or a mammal"
    animals = [(f"Is {_a(name)} {kinds}?", "", kind.capitalize()) for name, kind in _ANIMALS]
    numbers = [
        (f"Is the number {number} odd or even?", "", "Odd" if number % 2 else "Even")
        for number in range(11, 341, 11)
    ]
    return animals + numbers


def _closed_qa() -> list[Record]:
    records = []
    for index, ([person], step) in enumerate(product(_PEOPLE, range(4))):
        [_, city, _], [job] = _CAPITALS[7 * index % 30], _JOBS[(index + step) % 10]
        context = f"{person} lives in {city} and works there as {_a(job)}."
        about_job = (f"What is {person}'s job?", context, job.capitalize())
        about_city = (f"Where does {person} live?", context, city)
        records.append(about_job if step % 2 else about_city)
    return records


def _creative_writing() -> list[Record]:
    return [
        (f"Write one line about {_a(animal)} in {season}.", "", f"The {animal} dreams of {thing}.")
        for [animal, _], (season, thing) in product(_YOUNG[:15], _SEASONS.items())
    ]


def _general_qa() -> list[Record]:
    next_months = _MONTHS[1:] + _MONTHS[:1]
    return [
        *((f"What is the opposite of {a}?", "", b.capitalize()) for a, b in _OPPOSITES),
        *((f"What is a young {a} called?", "", _a(b).capitalize()) for a, b in _YOUNG),
        *(
            (f"Which month comes after {a}?", "", b)
            for [a], [b] in zip(_MONTHS, next_months, strict=True)
        ),
    ]


def _information_extraction() -> list[Record]:
    records = []
    for index, [_, city, _] in enumerate(_CAPITALS * 2):
        [day], price = _DAYS[index % 7], f"{20 + 37 * index % 80} euros"
        context = f"The train to {city} leaves on {day}. A ticket costs {price}."
        facts = (("price", price), ("day", day), ("city", city))
        name, value = facts[(index + index // 30) % 3]
        records.append((f"Extract the {name} from the notice.", context, value))
    return records


def _open_qa() -> list[Record]:
    return [
        *((f"What is the capital of {land}?", "", city) for land, city, _ in _CAPITALS),
        *((f"On which continent is {land}?", "", where) for land, _, where in _CAPITALS),
    ]


def _summarization() -> list[Record]:
    records = []
    for index, ([person], [hobby, _]) in enumerate(product(_PEOPLE, _GIFTS[:4])):
        [_, city, _], [day], [job] = _CAPITALS[11 * index % 30], _DAYS[index % 7], _JOBS[index % 10]
        context = (
            f"On {day} {person} took a train to {city}. There {person} met {_a(job)}, and the two "
            f"talked about {hobby} all afternoon. In the evening {person} went home."
        )
        summary = f"{person} went to {city} and talked about {hobby}."
        records.append(("Summarize the text in one sentence.", context, summary))
    return records
