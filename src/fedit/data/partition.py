"""Who holds which rows: each method takes rows or their labels and returns the Parts."""

import hashlib
import heapq
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedit.core.errors import InputError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """Each client's row indices, ascending; a client's id fits `[a-z0-9][a-z0-9_-]{0,63}`.

    `names` holds the client's key as written in the data (its id where it has none), `moved`
    the rows moved to meet a minimum, `dropped` the names of clients left out as too small.
    """

    rows: dict[str, list[int]]
    names: dict[str, str]
    moved: int = 0
    dropped: list[str] = field(default_factory=list)


def iid(n: int, clients: int, rng: np.random.Generator) -> Parts:
    """Shuffles `n` rows and deals them out evenly; sizes differ by one at most."""
    _positive("clients", clients)
    return _numbered(np.array_split(rng.permutation(n), clients))


def dirichlet(labels: Sequence[str], clients: int, alpha: float, rng: np.random.Generator) -> Parts:
    """Splits each label's rows over the clients by a draw from Dir(α); small α is more skew.

    The label-wise draw of Yurochkin et al. (arXiv 1905.12022, section 4), a variant of Hsu et
    al. (arXiv 1909.06335). Raises InputError unless clients ≥ 1 and α is positive and finite.
    """
    _positive("clients", clients)
    pieces: list[list[Rows]] = [[] for _ in range(clients)]
    for rows in _by_label(labels).values():
        for piece, part in zip(
            pieces, _cut(rng.permutation(rows), clients, alpha, rng), strict=True
        ):
            piece.append(part)
    return _numbered([np.concatenate(piece) if piece else np.arange(0) for piece in pieces])


def shards(labels: Sequence[str], clients: int, shards: int, rng: np.random.Generator) -> Parts:
    """Sorts rows by label, cuts them into clients · `shards` equal shards, deals `shards` to each.

    McMahan et al. (arXiv 1602.05629, section 3); FedIT (arXiv 2305.05644) deals two a client.
    Raises InputError when there are fewer rows than shards.
    """
    _positive("clients", clients)
    _positive("shards", shards)
    count = clients * shards
    if len(labels) < count:
        raise InputError(
            f"shards {shards}: {clients} clients · {shards} shards = {count} shards need as many "
            f"rows, and there are {len(labels)}; lower clients or shards"
        )
    groups = [rng.permutation(rows) for rows in _by_label(labels).values()]
    cut = np.array_split(np.concatenate(groups), count)
    dealt = rng.permutation(count).reshape(clients, shards)
    return _numbered([np.concatenate([cut[shard] for shard in hand]) for hand in dealt])


def sizes(n: int, clients: int, alpha: float, rng: np.random.Generator) -> Parts:
    """IID rows in unequal amounts: the clients' shares are a draw from Dir(α).

    Raises InputError unless clients ≥ 1 and α is positive and finite.
    """
    _positive("clients", clients)
    return _numbered(_cut(rng.permutation(n), clients, alpha, rng))


def by_key(labels: Sequence[str]) -> Parts:
    """The natural partition: one client for each label, its id made from the label."""
    groups = _by_label(labels)
    ids = client_ids(list(groups))
    return Parts(
        rows={ids[key]: rows.tolist() for key, rows in groups.items()},
        names={client: key for key, client in ids.items()},
    )


def check_enough(total: int, clients: int, minimum: int) -> None:
    """Raises InputError when `total` rows cannot give each client its minimum, before any is dealt."""
    if total < clients * minimum:
        raise InputError(
            f"minimum {minimum}: {clients} clients · {minimum} rows = {clients * minimum}, but there "
            f"are only {total} rows; lower the minimum or the number of clients"
        )


def at_least(parts: Parts, minimum: int, rng: np.random.Generator) -> Parts:
    """Moves random rows, always from the largest client, until each has `minimum` rows.

    Raises InputError at once when there are fewer than clients · `minimum` rows.
    """
    check_enough(sum(map(len, parts.rows.values())), len(parts.rows), minimum)
    rows = {client: list(held) for client, held in parts.rows.items()}
    largest = [(-len(held), client) for client, held in rows.items()]
    heapq.heapify(largest)
    moved = 0
    for held in rows.values():
        while len(held) < minimum:
            size, donor = largest[0]  # above the minimum, since the total suffices
            held.append(rows[donor].pop(int(rng.integers(-size))))
            heapq.heapreplace(largest, (size + 1, donor))
            moved += 1
    return replace(parts, rows={client: sorted(held) for client, held in rows.items()}, moved=moved)


def without_small(parts: Parts, minimum: int, small: Literal["refuse", "drop"]) -> Parts:
    """Leaves out the clients with fewer than `minimum` rows, for keys whose rows may not move.

    Raises InputError naming them when `small` is "refuse", and when none would be left.
    """
    few = [client for client, held in parts.rows.items() if len(held) < minimum]
    if few and (small == "refuse" or len(few) == len(parts.rows)):
        named = ", ".join(
            f"{parts.names[client]} ({len(parts.rows[client])})" for client in few[:5]
        )
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise InputError(
            f"minimum {minimum}: too few rows at {len(few)} of {len(parts.rows)} clients: "
            f"{named}{more}; lower the minimum, or have small clients dropped if others are left"
        )
    return replace(
        parts,
        rows={client: held for client, held in parts.rows.items() if client not in set(few)},
        names={client: name for client, name in parts.names.items() if client not in set(few)},
        dropped=[parts.names[client] for client in few],
    )


def client_ids(keys: Sequence[str]) -> dict[str, str]:
    """A client id for each key: its slug, and where several share one, a number behind it."""
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for key in sorted(keys):
        slug = client = _slug(key)
        count = 2
        while client in taken:
            client = f"{slug[: 63 - len(str(count))]}-{count}"
            count += 1
        taken.add(client)
        ids[key] = client
    return ids


def _slug(key: str) -> str:
    """The key in lower-case ASCII; a short hash stands for letters that have no ASCII form."""
    plain = unicodedata.normalize("NFKD", key.lower())
    slug = re.sub(r"[^a-z0-9_-]+", "-", "".join(c for c in plain if not unicodedata.combining(c)))
    slug = slug.strip("-_")
    lost = any(c.isalnum() and not c.isascii() for c in plain)
    if slug and len(slug) <= 64 and not lost:
        return slug
    digest = hashlib.sha256(key.encode(errors="replace")).hexdigest()[:8]
    return "-".join(part for part in (slug[:50].strip("-_"), digest) if part)


def _by_label(labels: Sequence[str]) -> dict[str, Rows]:
    """Row indices of each label, labels in sorted order."""
    groups: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    return {label: np.array(groups[label]) for label in sorted(groups)}


def _cut(rows: Rows, clients: int, alpha: float, rng: np.random.Generator) -> list[Rows]:
    """Cuts the rows where a draw from Dir(α) says; every row falls in one piece."""
    if not 0 < alpha < np.inf:
        raise InputError(f"alpha {alpha}: must be a positive, finite number")
    shares = rng.dirichlet(np.full(clients, alpha))
    if not np.isclose(shares.sum(), 1.0):  # the draw underflows: the limit is one client for all
        shares = np.eye(clients)[rng.integers(clients)]
    ends = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
    return np.split(rows, ends)


def _positive(what: str, count: int) -> None:
    if count < 1:
        raise InputError(f"{what} {count}: must be at least 1")


def _numbered(pieces: Sequence[Rows]) -> Parts:
    width = max(2, len(str(len(pieces) - 1)))
    rows = {f"client-{number:0{width}d}": np.sort(p).tolist() for number, p in enumerate(pieces)}
    return Parts(rows, {client: client for client in rows})
