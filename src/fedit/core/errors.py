"""One tree of errors: everything fedit raises on purpose is a FeditError."""


class FeditError(Exception):
    """Anything fedit refuses or cannot go on with; the message says what, why and what to do."""

    exit_code = 1


class InputError(FeditError):
    """The user's input cannot be used: names the key or file, the value, the reason and the remedy."""

    exit_code = 2


class BrokenInvariant(FeditError):
    """Something that must never happen did: not one client's failure, the run must stop."""


def brief(error: Exception) -> str:
    """Another library's error in one line of a message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'…' * (len(text) > 300)}"


def quoted(value: object, most: int = 80) -> str:
    """A stranger's value in one line of a message: printable ASCII, and no more of it than so much.

    >>> quoted("a\\x1b[2J" + "b" * 99, 12)
    "'a\\\\x1b[2Jbbb…"
    """
    if isinstance(value, str | bytes | list | tuple):
        value = value[: most + 1]  # enough to tell that it is longer, and no more is written out
    text = ascii(value)
    return text if len(text) <= most else f"{text[:most]}…"
