"""Rules by which an answer is right though it is not the reference word for word."""

import re

from fedit.core.errors import InputError
from fedit.evaluate.scores import exact_match, normalise

LABEL = "check"
"""The column of the data that holds a row's rule."""

_ANY = re.compile(r"any (\d+) of (.+)", re.DOTALL)
_LAST = re.compile(r"(?:^|\s)(?:and|y)\s+", re.IGNORECASE)


def check_rule(rule: str, where: str) -> None:
    """Refuse a rule that nobody knows. Raises InputError naming the row and the value."""
    if rule == "set":
        return
    if found := _ANY.fullmatch(rule.strip()):
        known = _listed(found[2])
        if 1 <= int(found[1]) <= len(known):
            return
    raise InputError(
        f"{where}: {LABEL} {rule[:200]!r} is no rule to check answers by; write 'set', or "
        "'any 3 of dog | cat | owl | …' with at least so many different choices, or rename the column"
    )


def correct(answer: str, reference: str, rule: str | None = None) -> bool:
    """Whether an answer is right: exact match, or what the row's rule (see `check_rule`) says.

    "set" asks for the reference's items in any order, "any N of …" for N different ones of those
    listed; items stand between commas, semicolons, line breaks and a last "and" or "y".
    """
    if rule is None:
        return exact_match(answer, reference)
    found = items(answer)
    if rule == "set":
        return sorted(found) == sorted(items(reference))
    wanted = _ANY.fullmatch(rule.strip())
    assert wanted is not None  # check_rule has seen it
    distinct = set(found)
    return len(found) == len(distinct) == int(wanted[1]) and distinct <= _listed(wanted[2])


def items(text: str) -> list[str]:
    """What a list in words holds, each item normalised."""
    *first, last = [part for part in re.split(r"[,;\n]", text) if part.strip()] or [""]
    parts = [normalise(part) for part in (*first, *_LAST.split(last))]
    return [part for part in parts if part]


def _listed(choices: str) -> set[str]:
    return {normalise(choice) for choice in choices.split("|")} - {""}
