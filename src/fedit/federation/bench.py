"""Sites by whose fault jobs break, left out of further ones for a while."""

import time
from collections.abc import Set

_FORGOTTEN = 600.0  # seconds after which a fault counts as the first again
_FREE = 2
_FIRST, _LONGEST = 600.0, 14400.0  # seconds of rest


class Bench:
    """Two faults in ten minutes are free; from the third on a site rests, each time twice as long."""

    def __init__(self) -> None:
        self._faults: dict[str, tuple[int, float]] = {}
        self._until: dict[str, float] = {}

    def blame(self, site: str) -> float:
        """Note a fault; the seconds that the site rests for it."""
        now = time.monotonic()
        count, last = self._faults.get(site, (0, now))
        count = 1 if now - max(last, self._until.get(site, 0.0)) > _FORGOTTEN else count + 1
        rest = min(_LONGEST, _FIRST * 2.0 ** (count - _FREE - 1)) if count > _FREE else 0.0
        self._faults[site], self._until[site] = (count, now), now + rest
        return rest

    def judge(self, missing: Set[str], members: Set[str]) -> dict[str, float]:
        """Blame those of a job's members that are missing from it; the seconds that each rests.

        Where all are missing nobody is blamed: the cause lies at the server, and nobody else could go on.
        """
        guilty = missing & members
        return {site: self.blame(site) for site in sorted(guilty)} if guilty != members else {}

    def resting(self) -> set[str]:
        """The sites that are left out now."""
        now = time.monotonic()
        return {site for site, until in self._until.items() if now < until}
