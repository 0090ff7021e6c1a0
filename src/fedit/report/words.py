"""Text and numbers as a page shows them: hostile characters made visible, units a person reads."""

import math
import unicodedata

_SPARED = "\n\t\u200c\u200d"  # breaks, and the joiners that some scripts and pictures need


_NOTE = 20  # about the length of what is said of a cut, for less than which nothing is cut


def visible(text: str, limit: int | None = None) -> str:
    """The text with every control, direction and unpaired character shown as a sign, cut at `limit`."""
    if limit is not None and len(text) <= limit + _NOTE:
        limit = None
    cut = text if limit is None else text[:limit]
    shown = "".join(map(_sign, cut.replace("\r\n", "\n")))
    if limit is not None:
        shown += f" … ({len(text) - limit:,} more characters)"
    return shown


def _sign(character: str) -> str:
    kind = unicodedata.category(character)
    if character in _SPARED or kind not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return character
    return f"⟨U+{ord(character):04X}⟩"


def line(text: str, limit: int = 80) -> str:
    """The text on one line, for names and labels."""
    return visible(" ".join(text.split()), limit) or "(no name)"


def finite(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage, without its sign."""
    return f"{100 * value:.{digits}f}" if value is not None and finite(value) else "–"


def signed(value: float | None, digits: int = 1) -> str:
    """A share as a percentage with its sign, which stays on the line."""
    return f"{percent(value, digits)}\N{NO-BREAK SPACE}%"


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Both ends of an interval of shares, in per cent; a dash would be read as a minus before one."""
    if low is None or high is None:
        return ""
    between = " to " if min(low, high) < 0 else "–"
    return f"{percent(low, digits)}{between}{percent(high, digits)}".replace("-", "−")


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals, a dash where there is none."""
    return f"{value:,.{digits}f}" if value is not None and finite(value) else "–"


def size(count: float | None) -> str:
    """Bytes in the largest fitting unit."""
    if count is None or not finite(count):
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} B" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration(seconds: float | None) -> str:
    """Seconds as seconds, minutes or hours."""
    if seconds is None or not finite(seconds):
        return "–"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
