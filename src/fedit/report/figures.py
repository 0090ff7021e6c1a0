"""Who holds what, drawn: stacked bars a client, and two rings after Figure 2 of FedIT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedit.core.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "muted" scheme, told apart by colour-blind readers; pale grey is kept for the rest.
_PALETTE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499",
)  # fmt: skip
_OTHER = "#D5D5D5"
_INK, _FAINT = "#222222", "#777777"
_FORMATS = (".png", ".svg", ".pdf")
_LONGEST = 26  # characters of a name that are shown

Counts = dict[str, dict[str, int]]  # client → label → rows


def partition_figure(
    rows: Mapping[str, Sequence[int]],
    labels: Sequence[str],
    *,
    names: Mapping[str, str] | None = None,
    title: str = "Rows of each client by category",
    caption: str = "",
) -> Figure:
    """Bars of each client's rows by label, and rings: all rows inside, each client's outside.

    `rows` maps a client to its row indices, `labels` has one entry a row, `names` are shown for
    client ids, `caption` stands below the title. The most frequent labels have a colour, the rest
    are "other". FedIT, arXiv 2305.05644, Figure 2. Raises InputError when no client has a row.
    """
    import matplotlib

    counts, colours = _counted(rows, labels)
    shown = [_short((names or {}).get(client, client)) for client in counts]
    with matplotlib.rc_context({"font.family": _fonts(), "text.parse_math": False}):
        return _draw(counts, colours, shown, title, caption)


def _draw(
    counts: Counts, colours: dict[str, str], names: list[str], title: str, caption: str
) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    pitch = 0.19 if len(counts) <= 40 else 0.13  # inches a client
    height = min(24.0, max(6.4, 1.7 + pitch * len(counts)))
    figure = Figure(figsize=(12.5, height), facecolor="white")
    figure.text(0.03, 1 - 0.2 / height, title, size=14, weight="bold", va="top", color=_INK)
    figure.text(0.03, 1 - 0.52 / height, caption, size=9.5, va="top", color=_FAINT)
    _bars(figure.add_axes((0.17, 0.65 / height, 0.4, 1 - 1.7 / height)), counts, colours, names)
    # The rings stand at the top of the right half, the legend right below them.
    rings = figure.add_axes((0.61, 1 - 4.75 / height, 3.7 / 9.75, 3.7 / height))
    _rings(rings, counts, colours)
    figure.legend(
        [Patch(color=colour) for colour in colours.values()],
        [_short(label) for label in colours],
        loc="upper center",
        bbox_to_anchor=(0.61 + 3.7 / 19.5, 1 - 4.85 / height),
        ncols=2,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Writes the figure as PNG, SVG or PDF, as the suffix says; equal figures give equal bytes.

    Raises InputError for another suffix and where the file cannot be written.
    """
    import warnings

    import matplotlib

    path = Path(path)
    kind = path.suffix.lower()
    if kind not in _FORMATS:
        raise InputError(
            f"figure '{path}': cannot draw {kind or 'without a suffix'}; end the "
            f"name in {', '.join(_FORMATS)}"
        )
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(kind)
    try:
        with matplotlib.rc_context({"svg.hashsalt": "fedit"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
            figure.savefig(path, dpi=130, metadata=undated)
    except OSError as error:
        raise InputError(f"figure '{path}': cannot be written: {error.strerror}") from error


def _counted(
    rows: Mapping[str, Sequence[int]], labels: Sequence[str]
) -> tuple[Counts, dict[str, str]]:
    """Rows by client and label, and each label's colour: most frequent first, "other" last."""
    totals = Counter(labels[row] for held in rows.values() for row in held)
    if not totals:
        raise InputError("figure: no client has a row; partition some rows first")
    ranked = sorted(totals, key=lambda label: (-totals[label], label))
    colours = dict(zip(ranked, _PALETTE, strict=False))
    rest = ranked[len(_PALETTE) :]
    other = f"other ({len(rest)})"
    if rest:
        colours[other] = _OTHER
    counts = {}
    for client, held in rows.items():
        own = Counter(label if (label := labels[row]) in colours else other for row in held)
        counts[client] = {label: own[label] for label in colours}
    return counts, colours


def _bars(axes: Axes, counts: Counts, colours: dict[str, str], names: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    left = [0] * len(counts)
    for label, colour in colours.items():
        widths = [own[label] for own in counts.values()]
        axes.barh(range(len(counts)), widths, left=left, height=0.8, color=colour, linewidth=0)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    size = 9 if len(counts) <= 40 else 7
    step = -(-len(counts) // 170)  # beyond 170 clients only every so many is named
    axes.set_yticks(range(0, len(counts), step), names[::step], size=size)
    for place in range(0, len(counts), step):
        axes.annotate(
            f"{left[place]:,}",
            (left[place], place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center_baseline",
            size=size - 1,
            color=_FAINT,
        )
    axes.set_ylim(len(counts) - 0.4, -0.6)  # the first client on top
    axes.set_xlim(0, 1.1 * max(left))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlabel("rows", color=_INK)
    axes.tick_params(colors=_INK, length=0)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _rings(axes: Axes, counts: Counts, colours: dict[str, str]) -> None:
    whole = {label: sum(own[label] for own in counts.values()) for label in colours}
    total = sum(whole.values())
    pieces = [(own[label], colour) for own in counts.values() for label, colour in colours.items()]
    inner = [(size, colours[label]) for label, size in whole.items()]
    _ring(axes, inner, outer_radius=0.66, gap=0.6)
    _ring(axes, pieces, outer_radius=1.0, gap=0.0)
    _borders(axes, [sum(own.values()) / total for own in counts.values()])
    axes.text(0, 0, f"{total:,} rows\n{len(counts)} clients", ha="center", va="center", color=_INK)
    axes.set_title(
        "inner ring: all rows\nouter ring: each client's, clockwise in the order of the bars",
        size=9.5,
        color=_FAINT,
        pad=2,
    )
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)


def _ring(axes: Axes, pieces: list[tuple[int, str]], outer_radius: float, gap: float) -> None:
    """Wedges of (size, colour), clockwise from the top; `gap` is the white line between them."""
    shown = [piece for piece in pieces if piece[0]]
    axes.pie(
        [size for size, _ in shown],
        colors=[colour for _, colour in shown],
        radius=outer_radius,
        startangle=90,
        counterclock=False,
        wedgeprops={"width": 0.3, "linewidth": gap, "edgecolor": "white"},
    )


def _borders(axes: Axes, shares: list[float]) -> None:
    """White lines between the clients of the outer ring, clockwise from the top."""
    from math import cos, pi, sin

    turned = 0.0
    for share in shares if len(shares) > 1 else []:
        x, y = cos(pi / 2 - 2 * pi * turned), sin(pi / 2 - 2 * pi * turned)
        width = 2.5 if len(shares) <= 40 else 1.0
        axes.plot([0.69 * x, 1.01 * x], [0.69 * y, 1.01 * y], color="white", linewidth=width)
        turned += share


def _fonts() -> list[str]:
    """Matplotlib's own font, then the installed ones that have the scripts it lacks."""
    from matplotlib.font_manager import fontManager

    wanted = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "Arial Unicode MS")
    installed = fontManager.get_font_names()
    return ["DejaVu Sans", *(font for font in wanted if font in installed)]


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
