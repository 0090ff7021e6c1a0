"""Clients at other organisations: invited, asked, and heard over whatever line carries the messages."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedit.core.errors import FeditError, quoted
from fedit.core.guards import travelling
from fedit.core.messages import Client, Failure, Order, Reply
from fedit.core.seats import Algorithm
from fedit.core.strict import WireError
from fedit.engines.ledger import Ledger
from fedit.engines.line import Line, News, Tell
from fedit.engines.messages import pack_order, unpack_update
from fedit.engines.said import counted, small, to_undo
from fedit.engines.sealed import ENROLMENT, FAILURE, INVITATION, UPDATE, Terms, read_label

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

TRIES = 3
"""Times that a site's worker may die of an order before the site is left out of the round."""

_TICK = 0.25  # seconds between two looks
_ABSENT = 30.0  # seconds of absence before a site is left out of the round
_PAUSE = 1.0  # seconds before it is asked anew

_FORGETS = "forgets its invitations: its worker dies each time, or another machine has its kit too"


@dataclass(slots=True)
class _Asked:
    """What is known of a site in the present round."""

    stage: str = "absent"  # or invited, asked
    number: int = -1
    tries: int = 0
    forgot: int = 0
    rests: float = 0.0
    since: float = field(default_factory=time.monotonic)


class Sites:
    """The engine of a federation over a network; its population are the sites that have enrolled.

    `recipe` is what sites carry out, as JSON values, and `deadline` the seconds that each has for a round;
    `counted` says that weights need the sites' counts. Where `only` is set, no others take part.
    """

    def __init__(
        self,
        line: Line,
        terms: Terms,
        recipe: Mapping[str, Any],
        key: "Ed25519PrivateKey",
        keys: Mapping[str, "Ed25519PublicKey"],
        deadline: float,
        counted: bool = True,
        tell: Tell = lambda site, what: None,
        keep: Callable[[], None] = lambda: None,
    ):
        self._line, self._deadline, self._tell, self._counted = line, deadline, tell, counted
        self._ledger, self._names = Ledger(terms, key, keys), sorted(keys)
        self._guests = Ledger(terms, key, keys)  # an invitation is of no round
        self._invitation = json.dumps(recipe).encode()
        self._ready, self._count, self.keep = set[str](), 0, keep
        self.enrolled: dict[str, Client] = {}
        self.undo: dict[str, list[int]] = {}
        self.refused: dict[str, str] = {}
        self._late: dict[str, _Asked] = {}
        self.algorithm: Algorithm[Any] | None = None
        self.only: frozenset[str] | None = None

    def clients(self) -> Sequence[Client]:
        """The sites that have enrolled, by name: in the order in which files become clients, too."""
        known = [name for name in self._names if name in self.enrolled]
        return [self.enrolled[name] for name in known if self.only is None or name in self.only]

    def gather(self, wait: float, minimum: int, patience: float) -> None:
        """Invite sites until all are there, or after `wait` seconds at least `minimum`. Raises FeditError."""
        began, asked, told = time.monotonic(), {name: _Asked() for name in self._names}, False
        while True:
            waited = time.monotonic() - began
            answered = len(self._ready) + len(self.refused) == len(self._names)
            if (answered or waited >= wait) and len(self._ready) >= minimum:
                return
            if waited >= wait and not told:
                told = True
                self._tell("server", self._missing(minimum))
            if waited > max(wait, patience) or len(self._names) - len(self.refused) < minimum:
                raise FeditError(self._too_few(minimum, waited))
            present = self._returned()
            for site in (present & asked.keys()) - self._ready - self.refused.keys():
                if asked[site].stage == "absent" and time.monotonic() > asked[site].rests:
                    self._invite(site, asked[site])
            news = self._line.next(_TICK)
            if news and (one := asked.get(news.site)) and news.number == one.number:
                self._enrol(news, one)

    def ask(self, order: Order) -> Iterator[Reply]:
        """Replies as they arrive; who is not there, or not in time, has failed."""
        until = time.monotonic() + self._deadline
        asked = {site: _Asked() for site in order.cohort}
        for site in asked:  # invited anew: what answers an earlier invitation is passed over
            self._late.pop(site, None)
        while asked:
            present, now = self._returned(), time.monotonic()
            self._welcome(present, set(asked), now)
            for site, one in list(asked.items()):
                if failure := self._given_up(site, one, present, now, until):
                    del asked[site]
                    yield failure
                elif one.stage == "absent" and site in present and now > one.rests:
                    if site in self._ready:
                        self._order(order, site, one, until)
                    elif site not in self.refused:
                        self._invite(site, one)
            news = self._line.next(_TICK) if asked else None
            if news is None:
                continue
            if (late := self._late.get(news.site)) and news.number == late.number:
                self._enrol(news, late)
                continue
            if (found := asked.get(news.site)) is None or news.number != found.number:
                continue
            if found.stage == "invited":
                self._enrol(news, found)
            elif (reply := self._heard(news, found, order)) is not None:
                del asked[news.site]
                yield reply

    def take_back(self, order: Order, clients: Sequence[str]) -> None:
        """Note whose part does not count: each is told with its next order, and undoes it first."""
        for site in clients:
            self.undo.setdefault(site, []).append(order.round + 1)
        self.keep()

    def close(self) -> None:
        """Let go of the line."""
        self._line.close()

    def _given_up(
        self, site: str, one: _Asked, present: frozenset[str], now: float, until: float
    ) -> Failure | None:
        if site in self.refused:
            return Failure(site, "refused", self.refused[site])
        if now > until:
            return Failure(site, "deadline", f"no update within {self._deadline:g} s")
        if site in present or not present:  # nobody is where the line is being mended
            one.since = now
        elif now - one.since > min(_ABSENT, self._deadline):
            return Failure(site, "gone", f"not connected for {now - one.since:.0f} s")
        if one.tries > TRIES:
            return Failure(site, "worker", f"its worker died {one.tries} times in this round")
        return None

    def _returned(self) -> frozenset[str]:
        """Who is there; who is not may have changed its mind when it returns."""
        present = self._line.present()
        for site in self.refused.keys() - present:
            del self.refused[site]
        return present

    def _welcome(self, present: frozenset[str], busy: set[str], now: float) -> None:
        """Invite who is there and not of this round: who comes late, or comes back after a refusal."""
        members = set(self._names) if self.only is None else self.only
        for site in (present & members) - busy - self._ready - self.refused.keys():
            one = self._late.setdefault(site, _Asked())
            if one.stage == "absent" and now > one.rests:
                self._invite(site, one)

    def _invite(self, site: str, one: _Asked) -> None:
        message = self._guests.seal(site, 0, 0, self._invitation, kind=INVITATION)
        self._post(site, one, "invited", message, self._deadline)

    def _order(self, order: Order, site: str, one: _Asked, until: float) -> None:
        blocks = to_undo(self.undo.get(site, ())), pack_order(order, site)
        message = self._ledger.seal(site, order.round, order.attempt, *blocks)
        self._post(site, one, "asked", message, max(1.0, until - time.monotonic()))

    def _post(self, site: str, one: _Asked, stage: str, message: bytes, seconds: float) -> None:
        self._count += 1
        one.stage, one.number = stage, self._count
        self._line.post(site, self._count, message, seconds)

    def _enrol(self, news: News, one: _Asked) -> None:
        """Take an enrolment, or the refusal of an invitation."""
        one.stage = "absent"
        if news.answer is None:
            self._lost(news, one)
            return
        try:
            kind = read_label(news.answer)[0].kind
            _, payload = self._guests.admit(news.answer, news.site, kind)
            said = small(payload)
            if kind != ENROLMENT:
                self.refused[news.site] = quoted(said.get("detail", ""), 600)
                self._tell(news.site, f"refused: {self.refused[news.site]}")
                return
            counts = [counted(said.get(key), self._counted) for key in ("examples", "tokens")]
        except WireError as error:
            self.refused[news.site] = str(error)
            self._tell(news.site, f"refused: {error}")
            return
        self._ready.add(news.site)
        known = self.enrolled.setdefault(news.site, Client(news.site, *counts))
        self.keep()
        self._tell(news.site, f"enrolled with {known.examples:,} rows")

    def _heard(self, news: News, one: _Asked, order: Order) -> Reply | None:
        """The reply in an answer; None where the site is to be asked again."""
        site = news.site
        if news.answer is None:
            self._lost(news, one)
            return None
        try:
            kind = read_label(news.answer)[0].kind
            _, payload = self._ledger.admit(
                news.answer, site, FAILURE if kind == FAILURE else UPDATE
            )
            if kind == UPDATE:
                assert self.algorithm is not None
                return unpack_update(payload, travelling(order, site, self.algorithm), site)
            said = small(payload)
        except WireError as error:
            return Failure(site, error.reason.value, str(error))
        reason = quoted(said.get("reason", ""), 32)
        if "not invited" in reason:  # its worker is new
            self._ready.discard(site)
            one.stage, one.rests = "absent", time.monotonic() + _PAUSE * one.forgot
            one.forgot += 1
            if one.forgot <= TRIES:
                return None
            return Failure(site, "error", _FORGETS)
        return Failure(site, "error", quoted(said.get("detail", ""), 600))

    def _lost(self, news: News, one: _Asked) -> None:
        """Ask anew, in a moment."""
        one.stage, one.rests = "absent", time.monotonic() + _PAUSE
        one.tries += news.worker
        self._tell(news.site, f"asked anew: {news.why}")

    def _missing(self, minimum: int) -> str:
        left, there = set(self._names) - self._ready - self.refused.keys(), self._line.present()
        lists = {"no answer yet": left & there, "absent": left - there}
        parts = [f"{what}: {', '.join(sorted(names))}" for what, names in lists.items() if names]
        parts += [f"{site} refused: {why}" for site, why in self.refused.items()]
        enrolled = f"{len(self._ready)} of {len(self._names)} have enrolled"
        return "; ".join([f"{enrolled}, federation.minimum needs {minimum}", *parts])

    def _too_few(self, minimum: int, waited: float) -> str:
        return (
            f"sites: {self._missing(minimum)}; after {waited:.0f} s. Nothing is lost: have sites join, or "
            "lower federation.minimum, then start the server again"
        )
