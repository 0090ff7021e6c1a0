"""Drawings as inline SVG: text stays text, and colours are the page's, so that they follow its theme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from fedit.report.words import line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for the page's own: matplotlib draws them, `svg` puts the page's variables in.
INK, FAINT, RULE, SURFACE = "#010101", "#010102", "#010103", "#010104"
_PAGE = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    RULE: "var(--rule)",
    SURFACE: "var(--surface)",
}
_PAGE |= {f"#0202{number:02x}": f"var(--c{number})" for number in range(10)}

COLOURS = 10
"""How many colours the page has; the last is the grey of "other"."""

CLIENTS_DRAWN = 60
"""Bars of a partition that are drawn; the table has them all."""

_DASHES: list[Any] = [
    "-",
    (0, (5, 2)),
    (0, (6, 2, 1.5, 2)),
    (0, (8, 3)),
    (0, (3, 1)),
]  # dots: training
_MARKS = "osD^vP*X"
Point = tuple[float, float]


def colour(number: int) -> str:
    """The colour that the page's variable of this number replaces."""
    return f"#0202{number % COLOURS:02x}"


@dataclass(frozen=True)
class Series:
    """One line of a chart: its mean, the runs it is the mean of, and faint companions."""

    name: str
    colour: int
    mean: Sequence[Point]
    runs: Sequence[Sequence[Point]] = ()
    faint: Sequence[Point] = ()
    level: bool = False


@dataclass(frozen=True)
class Dots:
    """One row's values by series, drawn as marks on a line."""

    name: str
    values: Mapping[str, float] = field(default_factory=dict)


def curves(
    series: Sequence[Series], x: str, y: str, *, key: str, label: str, wide: bool = False
) -> str:
    """Lines over a common axis; a level is drawn across, for what the axis does not apply to."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(11 if wide else 5.6, 3.9)
    entries: dict[str, Any] = {}
    for one in series:
        ink, dash = colour(one.colour), _DASHES[one.colour % len(_DASHES)]
        if one.level:
            across = axes.axhline(one.mean[-1][1], color=ink, lw=1.6, ls=dash)
            entries[line(one.name, 24)] = across
            continue
        for run in one.runs if len(one.runs) > 1 else ():
            axes.plot(*zip(*run, strict=True), color=ink, lw=0.7, alpha=0.3)
        if one.faint:
            axes.plot(*zip(*one.faint, strict=True), color=ink, lw=0.9, ls=":", alpha=0.65)
        marks = {"marker": _MARKS[one.colour % len(_MARKS)], "ms": 4.2, "mec": SURFACE, "mew": 0.6}
        if one.mean:
            [drawn] = axes.plot(*zip(*one.mean, strict=True), color=ink, lw=2, ls=dash, **marks)
            entries[line(one.name, 24)] = drawn
    axes.set_xlabel(x, color=FAINT)
    axes.set_ylabel(y, color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x == "round"))
    axes.grid(axis="y", color=RULE, lw=0.8)
    _legend(figure, entries)
    return svg(figure, key, label)


def dots(rows: Sequence[Dots], colours: Mapping[str, int], x: str, *, key: str, label: str) -> str:
    """A row of marks for each group, over a common axis with a line at 100."""
    figure, axes = _axes(11, 1.25 + 0.36 * len(rows))
    axes.axvline(100, color=INK, lw=1.2)
    entries: dict[str, Any] = {}
    for place, row in enumerate(rows):
        axes.axhline(place, color=RULE, lw=0.8)
        for number, (name, ink) in enumerate(colours.items()):
            if name in row.values:
                [drawn] = axes.plot(
                    [row.values[name]],
                    [place],
                    color=colour(ink),
                    marker=_MARKS[number % len(_MARKS)],
                    ms=10 if place == 0 else 7.5,
                    mec=SURFACE,
                    mew=1,
                    ls="",
                    clip_on=False,
                )
                entries.setdefault(line(name, 24), drawn)
    axes.set_yticks(range(len(rows)), [line(row.name, 30) for row in rows])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.6)
    most = max((value for row in rows for value in row.values.values()), default=100.0)
    axes.set_xlim(-0.02 * most, 1.03 * max(most, 100.0))
    axes.set_xlabel(x, color=FAINT)
    _legend(figure, entries)
    return svg(figure, key, label)


def stacks(
    counts: Mapping[str, Mapping[str, int]], colours: Mapping[str, int], *, key: str, label: str
) -> str:
    """A bar for each client, of its rows by label."""
    from matplotlib.ticker import MaxNLocator

    shown = dict(list(counts.items())[:CLIENTS_DRAWN])
    figure, axes = _axes(11, 1.3 + 0.24 * len(shown))
    left = [0] * len(shown)
    entries: dict[str, Any] = {}
    for name, ink in colours.items():
        widths = [own.get(name, 0) for own in shown.values()]
        bar = {"color": colour(ink), "height": 0.78, "edgecolor": SURFACE, "linewidth": 0.6}
        entries[line(name, 24)] = axes.barh(range(len(shown)), widths, left=left, **bar)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        near: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{total:,}", (total, place), color=FAINT, size=8.5, **near)
    axes.set_yticks(range(len(shown)), [line(client, 26) for client in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * max(*left, 1))
    axes.set_xlabel("rows", color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.grid(axis="x", color=RULE, lw=0.8)
    if len(colours) > 1:
        _legend(figure, entries)
    return svg(figure, key, label)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, labelsize=9.5)
    return figure, axes


def _legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    """Names above the drawing; given one by one, since matplotlib would hide those that begin with "_"."""
    if entries:
        columns = 3 if figure.get_size_inches()[0] < 8 else 5
        names = [name for start in range(columns) for name in list(entries)[start::columns]]
        figure.legend(
            [entries[name] for name in names],  # filled down the columns, to be read along the rows
            names,
            loc="outside upper left",
            ncols=columns,
            frameon=False,
            fontsize=9.5,
            labelcolor=INK,
            handlelength=2.4,
            columnspacing=1.4,
        )


def svg(figure: Figure, key: str, label: str) -> str:
    """The figure as an SVG element for a page: no ids but its own, the page's colours, an accessible name.

    Equal figures give equal text. `key` tells the drawings of one page apart.
    """
    import warnings

    import matplotlib

    out = io.StringIO()
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "fedit",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        for text in figure.findobj(matplotlib.text.Text):
            text.set_parse_math(False)
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"<!--.*?-->", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"<[^>]*>", lambda tag: _themed(tag[0], key), drawn)
    name = escape(line(label, 500))
    opening = f'<svg role="img" aria-label="{name}"'
    return drawn.replace("<svg", opening, 1).replace(">", f"><title>{name}</title>", 1).strip()


def _themed(tag: str, key: str) -> str:
    """One tag with the page's colours and with ids of this drawing's own."""
    tag = re.sub(r"#0[12]0[12][0-9a-f]{2}", lambda found: _PAGE.get(found[0], found[0]), tag)
    tag = re.sub(r'\bid="', f'id="{key}-', tag)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{key}-", tag)
