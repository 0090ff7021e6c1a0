"""Text from data, files and clients as a terminal may show it."""


def printable(text: str) -> str:
    """Text without control characters, which could steer a terminal; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
