"""Mutated messages against every reader of strangers' bytes: nothing may come out but a refusal or a message.

    python benchmarks/fuzz.py [MUTATIONS] [SEED]

Flips bits, splices, cuts and repeats bytes of good blocks and sealed messages; rewrites headers and
envelopes by a grammar; rewrites labels and signs them rightly. Prints how many were refused by reason, how
many passed (mutations that change nothing that counts), seconds and peak memory.
"""

import copy
import json
import random
import resource
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedit.core.gate import expected
from fedit.core.messages import ADAPTER, Order, Update
from fedit.core.strict import WireError
from fedit.core.tree import spec
from fedit.core.wire import pack, unpack
from fedit.engines.ledger import Ledger, Post
from fedit.engines.messages import pack_order, pack_update, unpack_order, unpack_update
from fedit.engines.sealed import Terms, read_label, seal

Change = Callable[[random.Random, bytes], bytes]

TREE = {f"layer.{i}.lora_{x}": torch.randn(2, 3) for i in range(2) for x in "AB"}
NAMES = frozenset(TREE)
ASKED = Order(3, 1, 7, {ADAPTER: TREE}, {"c0": 1.0}, NAMES, NAMES, 0.5, {"c0": {"own": TREE}})
WANTED = expected(ASKED, ("control",), "c0")
TERMS = Terms("0" * 32, "a" * 64, "b" * 64)
SERVER, CLIENT = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

UPDATE_BLOCK = pack_update(Update("c0", 3, 1, {ADAPTER: TREE, "control": TREE}, {"loss": 1.5}))
ORDER_BLOCK = pack_order(ASKED, "c0")
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**70, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "/", "a/b", "adapter", "F32", "I32", "F64", "BOOL", "F4", "__metadata__", "../../x", "\0", "\ud800",
    "é" * 40, "x" * 5000, [], [0], [0, 0], [True], [2, 3], [3, 2], [6], [-1, -1], [[]], {},
    {"": {}}, {"fedit": "{}"},
]  # fmt: skip
ODD_WORDS = [*(bytes([sign]) for sign in b'"\\[]{},:\xff\0'), b"NaN", b"1e999", b"[" * 40]


def flipped(rng: random.Random, block: bytes) -> bytes:
    found = bytearray(block)
    for _ in range(rng.choice((1, 1, 2, 8))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def cut(rng: random.Random, block: bytes) -> bytes:
    return block[: rng.randrange(len(block))]


def spliced(rng: random.Random, block: bytes) -> bytes:
    other = rng.choice((UPDATE_BLOCK, ORDER_BLOCK, block))
    a, b = sorted(rng.choices(range(len(other) + 1), k=2))
    at, end = rng.randrange(len(block)), rng.randrange(len(block))
    return block[:at] + other[a:b] + block[max(at, end) :]


def stuffed(rng: random.Random, block: bytes) -> bytes:
    """A word of JSON put anywhere into the header, whose length is told rightly."""
    text, data = apart(block)
    at = rng.randrange(len(text))
    return framed(text[:at] + rng.choice(ODD_WORDS) + text[at + rng.randrange(2) :], data)


def rewritten(rng: random.Random, block: bytes) -> bytes:
    """Places of the header's tree, or of the envelope's within, hold what does not belong there."""
    text, data = apart(block)
    header = json.loads(text)
    if rng.random() < 0.5:
        known = json.loads(header["__metadata__"]["fedit"])
        header["__metadata__"]["fedit"] = written(rng, grown(rng, known))
        return framed(written(rng, header).encode("utf-8", "surrogatepass"), data)
    return framed(written(rng, grown(rng, header)).encode("utf-8", "surrogatepass"), data)


def grown(rng: random.Random, tree: Any) -> Any:
    for _ in range(rng.choice((1, 1, 2))):
        places = list(walk(tree))
        owner, key = rng.choice(places) if places else (None, None)
        if owner is None:
            return odd(rng)
        match rng.randrange(4):
            case 0:
                owner[key] = odd(rng)
            case 1 if isinstance(owner, dict):
                owner[str(odd(rng))[:50]] = owner.pop(key)
            case 2:
                del owner[key]
            case _ if isinstance(owner[key], int) and not isinstance(owner[key], bool):
                owner[key] += rng.choice((-8, -1, 1, 4, 24))
            case _:
                other, name = rng.choice(places)
                owner[key] = json.loads(
                    json.dumps(other.get(name) if isinstance(other, dict) else None)
                )
    return tree


def odd(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD))


def walk(tree: Any) -> Any:
    """Every place in a tree: what holds it, and its key."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from walk(tree[key])


def written(rng: random.Random, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1 and text.count('":') > 1:  # a key twice
        first = text.index('":')
        text = text[:1] + text[1 : first + 2] + "0," + text[1:]
    return text


def apart(block: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(block[:8], "little")
    return block[8 : 8 + length], block[8 + length :]


def framed(text: bytes, data: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def relabelled(rng: random.Random, message: bytes) -> bytes:
    """Another word in the label, or none, signed rightly, and perhaps another payload."""
    label, _, payload = read_label(message)
    name = rng.choice([field.name for field in fields(label)])
    changes: dict[str, Any] = {
        "kind": rng.randrange(256),
        "round": rng.choice((0, 2, 4, 2**32 - 1)),
        "attempt": rng.choice((0, 2, 2**32 - 1)),
        "client": rng.choice(("c1", "x" * 64, "0")),
        "terms": rng.choice(
            (
                replace(TERMS, run="1" * 32),
                replace(TERMS, base="1" * 64),
                replace(TERMS, recipe="1" * 64),
            )
        ),
        "nonce": rng.randbytes(16),
        "answers": rng.randbytes(16),
        "digest": rng.randbytes(32),
        "size": rng.choice((0, label.size + 1, 2**64 - 1)),
    }
    sealed = seal(replace(label, **{name: changes[name]}), rng.choice((CLIENT, CLIENT, SERVER)))
    return sealed + (
        bytes(payload) if rng.random() < 0.8 else rng.choice(BLOCKS)(rng, bytes(payload))
    )


BLOCKS: tuple[Change, ...] = (flipped, cut, spliced, stuffed, rewritten, rewritten, rewritten)
SEALED: tuple[Change, ...] = (flipped, cut, spliced, relabelled, relabelled)


def read_update(block: bytes) -> None:
    update = unpack_update(block, WANTED, "c0")
    assert {role: spec(tree) for role, tree in update.payload.items()} == WANTED


def read_any(block: bytes) -> None:
    payload, envelope = unpack(block, most=2**20)
    assert pack(payload, envelope)


def read_order(block: bytes) -> None:
    unpack_order(block, most=2**20)


class Round:
    """One order asked and one update that answers it, for the server's and the client's side."""

    def __init__(self) -> None:
        self.book = Ledger(TERMS, SERVER, {"c0": CLIENT.public_key()})
        self.order = self.book.seal("c0", 3, 1, ORDER_BLOCK)
        by = Post(TERMS, "c0", CLIENT, SERVER.public_key())
        self.update = by.seal(by.take(self.order)[0], UPDATE_BLOCK)

    def admit(self, message: bytes) -> None:
        client, payload = self.book.admit(message)
        assert client == "c0"
        unpack_update(payload, WANTED, client)
        self.__init__()  # type: ignore[misc]  # its place is taken

    def take(self, message: bytes) -> None:
        _, payload = Post(TERMS, "c0", CLIENT, SERVER.public_key()).take(message)
        unpack_order(payload, most=2**20)


def attack(mutations: int, seed: int) -> dict[str, Counter[str]]:
    """By reader and reason how many mutations were refused; anything else that is raised goes through."""
    rng, here = random.Random(seed), Round()
    readers: tuple[
        tuple[str, Callable[[bytes], None], Callable[[], bytes], tuple[Change, ...]], ...
    ] = (
        ("update", read_update, lambda: UPDATE_BLOCK, BLOCKS),
        ("order", read_order, lambda: ORDER_BLOCK, BLOCKS),
        ("any block", read_any, lambda: UPDATE_BLOCK, BLOCKS),
        ("sealed update", here.admit, lambda: here.update, SEALED),
        ("sealed order", here.take, lambda: here.order, SEALED),
    )
    tally = {name: Counter[str]() for name, *_ in readers}
    for number in range(mutations):
        name, read, good, changes = readers[number % len(readers)]
        message, refusal = rng.choice(changes)(rng, good()), None
        try:
            read(message)
        except WireError as error:
            refusal = error
        tally[name][str(refusal.reason) if refusal else "passed"] += 1
        assert len(str(refusal)) < 500, refusal
        assert str(refusal).isprintable(), refusal
    return tally


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    mutations, seed = (*given, *(1_000_000, 0)[len(given) :])
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    tracemalloc.start()
    attack(2_000, seed + 1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    began = time.perf_counter()
    tally = attack(mutations, seed)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{mutations:,} mutations in {seconds:.0f} s; peak memory {after:.0f} MiB, {after - before:.0f} "
        f"of them since the start, at most {most / 2**20:.1f} MiB of Python's at a time"
    )
    for name, counts in tally.items():
        refused = counts.total() - counts["passed"]
        by = ", ".join(
            f"{reason} {n:,}" for reason, n in counts.most_common() if reason != "passed"
        )
        print(f"{name}: {refused:,} refused ({by}), {counts['passed']:,} passed")


if __name__ == "__main__":
    main()
