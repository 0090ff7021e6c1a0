"""Bad updates of every kind, each through a real round: refused by its reason, and the rest goes on.

A round with a refused client must be, bit for bit, the round in which that client had not replied at all,
and what the client keeps must be what it kept before.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from fedit.algorithms.scaffold import CONTROL, scaffold
from fedit.core.client import answer
from fedit.core.errors import FeditError
from fedit.core.gate import expected
from fedit.core.messages import ADAPTER, Order, State, Update
from fedit.core.norms import Bounds
from fedit.core.rounds import Round, rounds
from fedit.core.tree import Tree, same, scale
from fedit.core.wire import pack
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess
from fedit.engines.messages import pack_update, unpack_update
from tests.toy import Toy, toy_policy, tree

A, B = "layer.lora_A", "layer.lora_B"
BAD = "c1"
BOUNDS = Bounds(norm=4.0, times_median=3.0)
BUTTERFLY = torch.nn.Parameter(torch.zeros(2, 5))


@dataclass
class Disturbed:
    """An engine with one client whose replies in the second round are what `spoil` makes of them."""

    inner: InProcess
    spoil: Callable[[Update], Any]

    def clients(self):
        return self.inner.clients()

    def take_back(self, order, clients):
        self.inner.take_back(order, clients)

    def ask(self, order: Order):
        for reply in self.inner.ask(order):
            if order.round == 1 and reply.client == BAD:
                made = self.spoil(reply)
                yield from made if isinstance(made, list) else [made]
            else:
                yield reply


def two_rounds(folder: Path, engine: Callable[[Toy], Any]) -> tuple[list[Round], Homes]:
    toy = Toy(folder, clients=4)
    made, algorithm = engine(toy), scaffold(4)
    start = State(0, algorithm.server.init(tree(1)).public)
    policy = toy_policy(1.0, minimum=3, bounds=BOUNDS)
    return list(rounds(start, algorithm, made, policy, seed=0, until=2)), Homes(folder / "homes")


def disturbed(spoil: Callable[[Update], Any]) -> Callable[[Toy], Disturbed]:
    return lambda toy: Disturbed(toy.engine(scaffold(4)), spoil)


def on_the_wire(spoil: Callable[[bytes], bytes]) -> Callable[[Toy], InProcess]:
    """Every update as bytes, those of one client in the second round changed on their way."""

    def made(toy: Toy) -> InProcess:
        def reply(order, client, home):
            update, home = answer(order, client, home, toy.trainer, scaffold(4))
            block = pack_update(update)
            if order.round == 1 and client == BAD:
                block = spoil(block)
            return unpack_update(block, expected(order, (CONTROL,), client), client), home

        return InProcess(reply, toy.population, Homes(toy.folder / "homes"))

    return made


@cache
def without() -> tuple[tuple[Tree, ...], dict]:
    """The two rounds in which the client does not even train in the second: state, and homes."""

    def away(block: bytes) -> bytes:
        raise FeditError("away")

    with TemporaryDirectory() as folder:
        done, homes = two_rounds(Path(folder), on_the_wire(away))
        state = done[-1].state
        trees = (*state.public.values(), *state.private.values())
        return trees, {f"c{i}": homes.load(f"c{i}", 9).payload for i in range(4)}


def payload(change: Callable[[dict], Any]) -> Callable[[Update], Update]:
    """The update with a payload that was copied and then changed."""

    def spoil(update: Update) -> Update:
        copied = {role: dict(tree) for role, tree in update.payload.items()}
        made = change(copied)
        return replace(update, payload=copied if made is None else made)

    return spoil


def value(new: Any, name: str = A, role: str = ADAPTER) -> Callable[[Update], Update]:
    """One tensor put in the place of another; a function is given the old one."""

    def change(trees: dict) -> None:
        trees[role][name] = new(trees[role][name]) if callable(new) else new

    return payload(change)


def dropped(trees: dict) -> None:
    del trees[ADAPTER][B]


def metrics(**changes: Any) -> Callable[[Update], Update]:
    return lambda update: replace(update, metrics={**update.metrics, **changes})


def one(number: float, place: int = 3) -> Callable[[torch.Tensor], torch.Tensor]:
    def spoil(t: torch.Tensor) -> torch.Tensor:
        t = t.clone()
        t.view(-1)[place] = number
        return t

    return spoil


def grown(role: str, factor: float) -> Callable[[Update], Update]:
    return payload(lambda trees: trees.update({role: scale(trees[role], factor)}))


def moved(factor: float) -> Callable[[Update], Update]:
    """w + factor (w_k − w): a replacement of the model, whose start is looked up in the shared round."""

    def change(trees: dict) -> None:
        start = first_round()
        trees[ADAPTER] = {n: start[n] + factor * (t - start[n]) for n, t in trees[ADAPTER].items()}

    return payload(change)


@cache
def first_round() -> Tree:
    with TemporaryDirectory() as folder:
        return two_rounds(Path(folder), disturbed(lambda u: u))[0][0].state.adapter


AS_OBJECTS = {
    # ---- when, who
    "the round before": (lambda u: replace(u, round=0), "stale"),
    "the round after": (lambda u: replace(u, round=2), "stale"),
    "a round that is none": (lambda u: replace(u, round=-1), "stale"),
    "another attempt": (lambda u: replace(u, attempt=1), "stale"),
    "a round in words": (lambda u: replace(u, round="1"), "stale"),
    "no round": (lambda u: replace(u, round=None), "stale"),
    "a stranger in its place": (lambda u: replace(u, client="mallory"), "silent"),
    "a path for a name": (lambda u: replace(u, client="../../c1"), "silent"),
    "in another's name": (lambda u: replace(u, client="c0"), "silent"),
    "no reply": (lambda u: [], "silent"),
    # ---- roles
    "nothing": (payload(lambda trees: {}), "roles"),
    "a role missing": (payload(lambda trees: {ADAPTER: trees[ADAPTER]}), "roles"),
    "no adapter": (payload(lambda trees: {CONTROL: trees[CONTROL]}), "roles"),
    "a role too many": (payload(lambda trees: {**trees, "x": {}}), "roles"),
    "a role of the server's": (payload(lambda trees: {**trees, "gate": {}}), "roles"),
    "the base": (payload(lambda trees: {**trees, "base": tree(1)}), "roles"),
    "a role that is a number": (payload(lambda trees: {**trees, 7: {}}), "roles"),
    "a million letters": (payload(lambda trees: {**trees, "x" * 10**6: {}}), "roles"),
    # ---- names
    "a name missing": (payload(dropped), "names"),
    "an empty adapter": (payload(lambda trees: {**trees, ADAPTER: {}}), "names"),
    "an empty further role": (payload(lambda trees: {**trees, CONTROL: {}}), "names"),
    "the base's embeddings": (value(torch.zeros(1), "model.embed_tokens.weight"), "names"),
    "a path for a parameter": (value(torch.zeros(1), "../../x"), "names"),
    "a name with a space behind it": (value(torch.zeros(2, 5), f"{A} "), "names"),
    "an empty name": (value(torch.zeros(1), ""), "names"),
    "a name too many in a further role": (value(torch.zeros(1), "x", CONTROL), "names"),
    "a hundred thousand names": (
        payload(
            lambda trees: trees[ADAPTER].update({f"x{i}": torch.zeros(1) for i in range(10**5)})
        ),
        "names",
    ),
    # ---- shapes
    "turned": (value(lambda t: t.T), "shape"),
    "flat": (value(lambda t: t.reshape(-1)), "shape"),
    "one row": (value(lambda t: t[:1]), "shape"),
    "one row more": (value(lambda t: torch.cat([t, t[:1]])), "shape"),
    "a scalar": (value(torch.tensor(1.0)), "shape"),
    "what would broadcast": (value(torch.zeros(1, 5)), "shape"),
    "one dimension more": (value(lambda t: t[None]), "shape"),
    "no numbers": (value(torch.zeros(0, 5)), "shape"),
    "a further role's": (value(torch.zeros(5, 2), A, CONTROL), "shape"),
    # ---- dtypes
    "fp64": (value(lambda t: t.double()), "dtype"),
    "fp16": (value(lambda t: t.half()), "dtype"),
    "bf16": (value(lambda t: t.bfloat16()), "dtype"),
    "fp8": (value(lambda t: t.to(torch.float8_e5m2)), "dtype"),
    "integers": (value(lambda t: t.int()), "dtype"),
    "truths": (value(lambda t: t > 0), "dtype"),
    "complex": (value(lambda t: t.to(torch.complex64)), "dtype"),
    "a further role's dtype": (value(torch.zeros(2, 5).double(), A, CONTROL), "dtype"),
    # ---- no tensors of ours
    "a list": (value([[0.0] * 5] * 2), "tensor"),
    "a number": (value(0.0), "tensor"),
    "none": (value(None), "tensor"),
    "an array": (value(torch.zeros(2, 5).numpy()), "tensor"),
    "sparse": (value(lambda t: t.to_sparse()), "tensor"),
    "without numbers": (value(torch.zeros(2, 5, device="meta")), "tensor"),
    "with a gradient to come": (value(BUTTERFLY), "tensor"),
    "a tree that is a list": (payload(lambda trees: {**trees, CONTROL: []}), "tensor"),
    "a payload that is a list": (payload(lambda trees: []), "tensor"),
    # ---- values
    "NaN": (value(one(torch.nan)), "not finite"),
    "infinity": (value(one(torch.inf)), "not finite"),
    "minus infinity at the end": (value(one(-torch.inf, -1), B), "not finite"),
    "both infinities": (value(lambda t: one(-torch.inf, 0)(one(torch.inf, 1)(t))), "not finite"),
    "nothing but NaN": (grown(ADAPTER, torch.nan), "not finite"),
    "NaN in a further role": (value(one(torch.nan), A, CONTROL), "not finite"),
    # ---- norms
    "a hundred times the way": (moved(100), "norm"),
    "a hundred times the way back": (moved(-100), "norm"),
    "the greatest numbers": (value(lambda t: torch.full_like(t, 3e38)), "norm"),
    "one great number": (value(one(1e6)), "norm"),
    "one great factor": (grown(ADAPTER, 30), "norm"),
    "the same product of a great and a small factor": (
        payload(
            lambda trees: trees.update(
                {ADAPTER: {A: trees[ADAPTER][A] / 64, B: trees[ADAPTER][B] * 64}}
            )
        ),
        "norm",
    ),
    "a great factor that meets none": (
        payload(
            lambda trees: trees.update(
                {ADAPTER: {A: trees[ADAPTER][A] * 1e9, B: trees[ADAPTER][B] * 0}}
            )
        ),
        "norm",
    ),
    "a great control": (grown(CONTROL, 50), "norm"),
    "one great number of the control": (value(one(1e30), B, CONTROL), "norm"),
    "the greatest control": (value(lambda t: torch.full_like(t, -3e38), B, CONTROL), "norm"),
    # ---- metrics
    "a metric NaN": (metrics(loss=float("nan")), "metrics"),
    "a metric infinite": (metrics(loss=float("-inf")), "metrics"),
    "a metric too large": (metrics(tokens=1e16), "metrics"),
    "fewer tokens than none": (metrics(tokens=-1e15), "metrics"),
    "an integer beyond all floats": (metrics(tokens=10**400), "metrics"),
    "a metric in words": (metrics(loss="low"), "metrics"),
    "a metric that is none": (metrics(loss=None), "metrics"),
    "a truth for a metric": (metrics(loss=True), "metrics"),
    "a tensor for a metric": (metrics(loss=torch.zeros(1)), "metrics"),
    "a million metrics": (metrics(**{f"m{i}": 0.0 for i in range(10**6)}), "metrics"),
    "metrics one too many": (metrics(**{f"m{i}": 0.0 for i in range(31)}), "metrics"),
    "a long name": (metrics(**{"a" * 33: 0.0}), "metrics"),
    "a capital": (metrics(Loss=0.0), "metrics"),
    "markup for a name": (metrics(**{"<script>": 0.0}), "metrics"),
    "an escape in a name": (metrics(**{"a\x1b[2J": 0.0}), "metrics"),
    "a newline after a name": (metrics(**{"loss\n": 0.0}), "metrics"),
    "no name": (metrics(**{"": 0.0}), "metrics"),
    "a number for a name": (lambda u: replace(u, metrics={1: 0.0}), "metrics"),
    "a list of metrics": (lambda u: replace(u, metrics=[("loss", 0.0)]), "metrics"),
}


def again(**changes: Any) -> Callable[[bytes], bytes]:
    """The block with other words in its envelope."""

    def spoil(block: bytes) -> bytes:
        update = unpack_update(block)
        said = {"client": BAD, "round": 1, "attempt": 0, "metrics": {}, **changes}
        return pack(update.payload, {key: v for key, v in said.items() if v is not ...})

    return spoil


def repacked(change: Callable[[dict], Any]) -> Callable[[bytes], bytes]:
    return lambda block: pack_update(payload(change)(unpack_update(block)))


AS_BYTES = {
    "no bytes": (lambda b: b"", "size"),
    "random bytes": (lambda b: bytes(range(256)) * 4, "size"),
    "cut short": (lambda b: b[:-1], "offsets"),
    "one byte more": (lambda b: b + b"\0", "offsets"),
    "a great block": (lambda b: b + bytes(2**20), "size"),
    "a long header": (lambda b: (2**18 + 8).to_bytes(8, "little") + b"{" * (2**18 + 8), "header"),
    "no text": (lambda b: b.replace(b"metadata", b"meta\xffata"), "text"),
    "no JSON": (lambda b: b.replace(b'"F32"', b"'F32'", 1), "json"),
    "NaN in the envelope": (again(metrics={"loss": float("nan")}), "number"),
    "another dtype told": (lambda b: b.replace(b'"F32"', b'"I32"', 1), "dtype"),
    "an unknown dtype told": (lambda b: b.replace(b'"F32"', b'"F99"', 1), "entry"),
    "a tensor twice": (
        lambda b: b.replace(b"adapter/layer.lora_B", b"adapter/layer.lora_A"),
        "key twice",
    ),
    "a role renamed": (
        lambda b: b.replace(b"control/layer.lora_B", b"contrOl/layer.lora_B"),
        "roles",
    ),
    "a role dropped": (repacked(lambda trees: {ADAPTER: trees[ADAPTER]}), "roles"),
    "a name dropped": (repacked(dropped), "names"),
    "a shape turned": (
        repacked(lambda trees: trees[ADAPTER].update({A: trees[ADAPTER][A].T})),
        "shape",
    ),
    "another's name": (again(client="c0"), "identity"),
    "no id": (again(client="C1\n"), "envelope"),
    "no client": (again(client=...), "envelope"),
    "a claim of weight": (again(weight=1e9), "envelope"),
    "a claim of examples": (again(examples=10**9), "envelope"),
    "a truth for a round": (again(round=True), "envelope"),
    "a round less than none": (again(round=-1), "envelope"),
    "a round beyond all": (again(round=2**40), "envelope"),
    "metrics in a list": (again(metrics=[1.0]), "envelope"),
    "a metric in words on the wire": (again(metrics={"loss": "low"}), "envelope"),
    "an old round on the wire": (again(round=0), "stale"),
    "ten thousand metrics": (again(metrics={f"m{i}": 0.0 for i in range(10**4)}), "metrics"),
    "more metrics than fit": (again(metrics={f"m{i}": 0.0 for i in range(10**5)}), "size"),
    "NaN in a tensor": (
        repacked(lambda trees: trees[ADAPTER].update({A: one(torch.nan)(trees[ADAPTER][A])})),
        "not finite",
    ),
}
assert len(AS_OBJECTS) + len(AS_BYTES) > 100


def refused_alone(found: tuple[list[Round], Homes], reason: str, detail: int = 400) -> None:
    done, homes = found
    trees, kept = without()
    failed = [f for f in done[-1].failures if f.client == BAD]
    assert [str(f.reason) for f in failed] == [reason]
    assert len(failed[0].detail) < detail
    assert failed[0].detail.isprintable()
    assert set(done[-1].metrics) == {"c0", "c2", "c3"}
    state = done[-1].state
    ours = (*state.public.values(), *state.private.values())
    assert all(same(*pair) for pair in zip(ours, trees, strict=True))
    for client, wanted in kept.items():
        now = homes.load(client, 9).payload
        assert now.keys() == wanted.keys() == {CONTROL}
        assert same(now[CONTROL], wanted[CONTROL])


@pytest.mark.parametrize("case", AS_OBJECTS)
def test_a_bad_update_is_refused_alone(case, tmp_path):
    spoil, reason = AS_OBJECTS[case]
    refused_alone(two_rounds(tmp_path, disturbed(spoil)), reason)


@pytest.mark.parametrize("case", AS_BYTES)
def test_bad_bytes_are_refused_alone(case, tmp_path):
    spoil, reason = AS_BYTES[case]
    refused_alone(two_rounds(tmp_path, on_the_wire(spoil)), reason)


GOOD = {
    "as it is": lambda u: u,
    "with fewer metrics": lambda u: replace(u, metrics={}),
    "with other metrics": metrics(**{f"m{i}": -1e15 for i in range(25)}),
    "twice": lambda u: [u, grown(ADAPTER, 0.0)(u)],
    "beside a stranger's": lambda u: [replace(u, client="mallory"), u],
    "after an old one of a stranger's": lambda u: [replace(u, client="../c1", round=0), u],
    "its tensors strided": value(lambda t: t.T.contiguous().T),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_no_fault_passes(case, tmp_path):
    done, homes = two_rounds(tmp_path, disturbed(GOOD[case]))
    assert set(done[-1].metrics) == {"c0", "c1", "c2", "c3"}
    before, after = (homes.load(BAD, round).payload[CONTROL] for round in (1, 2))
    assert not torch.equal(before[A], after[A])
    assert {f.reason for f in done[-1].failures} <= {"duplicate", "stranger"}


def test_an_update_says_nothing_of_its_weight(tmp_path):
    """Claims among the metrics change no bit."""
    plain = two_rounds(tmp_path / "a", disturbed(lambda u: u))[0][-1].state.adapter
    claims = metrics(weight=1e9, examples=1e9, weights=1e9, adapter_norm=0.0)
    boast = two_rounds(tmp_path / "b", disturbed(claims))[0][-1]
    assert all(torch.equal(t, plain[n]) for n, t in boast.state.adapter.items())
    assert boast.metrics[BAD]["adapter_norm"] > 0, "the server's own figure stands"
