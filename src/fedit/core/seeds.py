"""One run seed, many named streams: what is drawn for one purpose never shifts another."""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the purpose `names` under the run's seed, the same on every machine.

    >>> stream(0, "cohort", 3) == stream(0, "cohort", 3)
    True
    >>> stream(0, "cohort", 3) == stream(1, "cohort", 3)
    False
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the purpose `names` under the run's seed."""
    return np.random.default_rng(stream(seed, *names))
