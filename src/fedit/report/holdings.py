"""Who holds what: each client's rows by label, or only how many where the data can no longer be read."""

from collections import Counter
from collections.abc import Mapping

from fedit.report.blocks import Block, Cell, Chart, Note, Section, Table
from fedit.report.charts import CLIENTS_DRAWN, COLOURS, stacks
from fedit.report.words import line

Holdings = Mapping[str, Mapping[str, int]]
"""Client → label → rows."""


def section(held: Holdings, by: str | None, said: str) -> Section | None:
    """The picture of a partition; `by` is the label it is drawn over, None where only sizes are known."""
    if not any(held.values()):
        return None
    counts, inks = ranked(held)
    total = sum(sum(own.values()) for own in counts.values())
    sizes = sorted(sum(own.values()) for own in counts.values())
    middle = f"{total:,} rows over {len(counts):,} clients, from {sizes[0]:,} to {sizes[-1]:,} each"
    what = f" by {line(by.lstrip('@'))}" if by else ""
    drawn = stacks(counts, inks, key="held", label=f"Rows of each client{what}: {middle}.")
    caption = f"Rows of each client{what}: {middle}."
    if len(counts) > CLIENTS_DRAWN:
        caption += f" The first {CLIENTS_DRAWN} are drawn; the table has all."
    rows = [
        [
            Cell(line(client)),
            *(Cell(f"{own.get(label, 0):,}") for label in inks),
            Cell(f"{sum(own.values()):,}"),
        ]
        for client, own in counts.items()
    ]
    heads = ["Client", *(line(label) for label in inks), "All"] if by else ["Client", "Rows", "All"]
    blocks: list[Block] = [Chart(drawn, caption, Table(f"Rows{what}", heads, rows), wide=True)]
    if said:
        blocks.append(Note(said))
    intro = (
        "What every owner holds never leaves it; the more unlike the owners, the harder the task."
    )
    return Section("holdings", "Who holds what", intro, blocks)


def ranked(counts: Mapping[str, Mapping[str, int]]) -> tuple[Holdings, dict[str, int]]:
    """The counts with rare labels put together as "other", and a colour for each label, most rows first."""
    totals: Counter[str] = Counter()
    for own in counts.values():
        totals.update(own)
    labels = sorted(totals, key=lambda label: (-totals[label], label))
    room = COLOURS - 1
    inks = {label: number for number, label in enumerate(labels[:room])}
    rest = labels[room:]
    if not rest:
        return counts, inks
    other = f"other ({len(rest)})"
    inks[other] = room
    return {
        client: {
            **{label: own.get(label, 0) for label in labels[:room]},
            other: sum(own.get(label, 0) for label in rest),
        }
        for client, own in counts.items()
    }, inks
