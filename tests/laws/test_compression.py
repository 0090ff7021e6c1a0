"""The laws of what travels in a short form, for every algorithm."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch

from fedit.algorithms.exactness import measured
from fedit.core.codes import Bf16, Largest, Whole
from fedit.core.messages import ADAPTER, State
from fedit.core.packing import UNSENT, compressed
from fedit.core.rounds import Round
from fedit.core.seats import Algorithm
from fedit.core.tree import Tree, only, same
from fedit.core.wire import unpack
from fedit.engines.messages import pack_order, unpack_order
from tests.laws.test_laws import ALGORITHMS, ENGINES, _through_bytes, _train_and_crash
from tests.toy import Toy, last, toy_policy, tree

CODES = {
    "bf16": partial(compressed, up=Bf16(), down=Bf16()),
    "int8": partial(compressed, up=Whole(8, 4), down=Whole(8, 4)),
    "int4": partial(compressed, up=Whole(4, 4), down=Whole(8, 4)),
    "topk": partial(compressed, up=Largest(0.3), down=Largest(0.8), remembers=True),
    "mixed": partial(compressed, up=Largest(0.3), down=Whole(4, 4), remembers=True),
}

every = pytest.mark.parametrize("name", ALGORITHMS)
# Every method with one code, which remembers on both sides; a few with every code.
every_in_short = pytest.mark.parametrize(
    ("name", "code"),
    [(name, CODES["mixed"]) for name in ALGORITHMS]
    + [(n, code) for n in ("fedavg", "scaffold", "hetlora, mixed") for code in CODES.values()],
)
in_short = pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
COARSE = {name: CODES[name] for name in ("int4", "topk", "mixed")}
coarse = pytest.mark.parametrize("code", COARSE.values(), ids=COARSE.keys())


def same_states(one: State, other: State) -> bool:
    return all(
        left.keys() == right.keys() and all(same(tree, right[role]) for role, tree in left.items())
        for left, right in ((one.public, other.public), (one.private, other.private))
    )


def homes_of(toy: Toy, engine) -> dict[str, dict[str, Tree]]:
    return {c.id: engine.homes.load(c.id, 10**6).payload for c in toy.population}


@every_in_short
def test_engines_agree_bit_for_bit(name, code, tmp_path, monkeypatch):
    monkeypatch.setattr("fedit.core.shares.GROUPS", 2)
    algorithm, results = code(ALGORITHMS[name].make()), []
    for kind in ENGINES:
        toy = Toy(tmp_path / kind, keep=True)
        engine = toy.engine(algorithm, kind, dropout=0.3)
        done = toy.run(algorithm, engine=engine, policy=toy_policy(5, minimum=1))
        traffic = [
            {c: (m["bytes_up"], m["bytes_down"]) for c, m in r.metrics.items()} for r in done
        ]
        results.append((done[-1].state, traffic, homes_of(toy, engine)))
    (state, traffic, homes), *others = results
    for other, bytes_sent, kept in others:
        assert same_states(state, other)
        assert bytes_sent == traffic
        assert all(same(t, kept[c][r]) for c, roles in homes.items() for r, t in roles.items())


@every_in_short
def test_killed_after_any_round_and_resumed_is_never_killed(name, code, tmp_path):
    algorithm, whole = code(ALGORITHMS[name].make()), Toy(tmp_path / "whole", keep=True)
    undisturbed = whole.run(algorithm, "pairs", until=5)[-1].state
    for killed in (0, 3):
        toy = Toy(tmp_path / f"killed-{killed}", keep=True)
        state = algorithm.server.init(tree(1))
        if killed:
            state = toy.run(algorithm, "pairs", until=killed)[-1].state
        _train_and_crash(toy, algorithm, "pairs", state)
        resumed = toy.run(algorithm, "pairs", state=_through_bytes(state), until=5)
        assert same_states(resumed[-1].state, undisturbed)


@every
def test_without_codes_the_bits_are_those_of_the_method(name, tmp_path):
    algorithm = ALGORITHMS[name].make()
    plain = Toy(tmp_path / "a").run(algorithm)
    neutral = Toy(tmp_path / "b").run(compressed(algorithm, None, None))
    assert same_states(plain[-1].state, neutral[-1].state)


@every
def test_a_fine_code_is_close_to_none(name, tmp_path):
    """bf16 both ways: a tenth of a per cent of what the adapter holds, as nothing piles up.

    Turns of a decomposition are not continuous, and where losses choose, they may choose otherwise.
    """
    algorithm = ALGORITHMS[name].make()
    plain = last(Toy(tmp_path / "a").run(algorithm))
    packed = last(Toy(tmp_path / "b").run(CODES["bf16"](algorithm)))
    if name.startswith("flexlora"):
        plain, packed = ({"": t["layer.lora_B"] @ t["layer.lora_A"]} for t in (plain, packed))
    for key, values in plain.items():
        torch.testing.assert_close(packed[key], values, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["scaffold", "fedex_lora", "ifca", "afl"])
@coarse
def test_every_client_of_a_round_receives_the_same_bytes(name, code, tmp_path):
    """What is unpacked from a client's own message is what the server computes from."""
    algorithm = code(ALGORITHMS[name].make())
    [done] = Toy(tmp_path).run(algorithm, until=1)
    for client in done.order.cohort:
        block = pack_order(done.order, client)
        assert len(block) == done.metrics[client]["bytes_down"]
        sent, order = unpack(block)[0], unpack_order(block)
        assert sent.keys() == done.order.public.keys()
        assert all(same(t, done.order.packed.payload[role]) for role, t in sent.items())
        assert all(same(t, done.order.public[role]) for role, t in order.public.items())
        assert replace(order, public={}, packed=None) == replace(
            done.order, public={}, packed=None, weights=order.weights
        )
        assert pack_order(order, client) == block


@pytest.mark.parametrize("name", ["ffa_lora", "rolora", "fedper", "fedsa_lora"])
@coarse
def test_what_no_round_changes_is_received_as_the_same_bits(name, code, tmp_path):
    algorithm = code(ALGORITHMS[name].make())
    done = Toy(tmp_path).run(algorithm, until=6)
    for before, after in pairwise(done):
        rest = before.order.public[ADAPTER].keys() - before.order.travels
        assert rest
        assert same(
            only(before.order.public[ADAPTER], rest), only(after.order.public[ADAPTER], rest)
        )
        assert same(only(before.state.adapter, rest), only(before.order.public[ADAPTER], rest))


@pytest.mark.parametrize("name", ["ffa_lora", "rolora", "fedex_lora", "flora"])
@coarse
def test_exact_methods_stay_exact_about_what_arrived(name, code, tmp_path):
    """Ranks may be unlike, factors coarse: the server's step is the mean of the products that came."""
    if name == "flora" and code is CODES["topk"]:
        code = CODES["int4"]  # the plan refuses it
    algorithm = code(measured(ALGORITHMS[name].make(), 2.0))
    for done in Toy(tmp_path).run(algorithm, policy=toy_policy(1.0)):
        assert done.told["lost"] < 1e-6


class Telling:
    """A method, its order and updates of each round noted down before and after they travel."""

    def __init__(self, algorithm: Algorithm):
        [self.guard] = algorithm.guards
        self.meant: dict[str, list[Tree]] = {}
        self.sent: dict[str, list[Tree]] = {}
        self.algorithm = replace(algorithm, guards=(self,))
        self.late = False

    def seal(self, update, order, home):
        began = order.public[ADAPTER]
        moved = {n: t.double() - began[n].double() for n, t in update.payload[ADAPTER].items()}
        self.meant.setdefault(update.client, []).append(moved)
        return self.guard.seal(update, order, home)

    def sealed(self, plain):
        return self.guard.sealed(plain)

    def open(self, update, order, plain):
        code = self.guard.code
        found = code.unpack(update.payload[ADAPTER], plain[ADAPTER])
        self.sent.setdefault(update.client, []).append(found)
        return self.guard.open(update, order, plain)

    def settle(self, total, order):
        return total


@pytest.mark.parametrize("name", ["fedavg", "rolora", "scaffold", "fedper"])
def test_all_that_was_sent_and_the_memory_are_all_differences(name, tmp_path):
    told = Telling(compressed(ALGORITHMS[name].make(), Largest(0.2), None, remembers=True))
    toy = Toy(tmp_path)
    engine = toy.engine(told.algorithm)
    toy.run(told.algorithm, engine=engine, until=8)
    kept = {c: roles.get(UNSENT + ADAPTER, {}) for c, roles in homes_of(toy, engine).items()}
    assert len(told.meant) == 6
    for client, moves in told.meant.items():
        for key in kept[client]:
            meant = sum(one[key] for one in moves if key in one)
            sent = sum(one[key].double() for one in told.sent[client] if key in one)
            torch.testing.assert_close(sent + kept[client][key], meant, rtol=0, atol=1e-5)
            assert float((sent - meant).abs().max()) > 1e-3  # the memory is what makes it so


@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
@in_short
def test_on_the_way_down_errors_do_not_pile_up(name, code, tmp_path):
    """w_T = w_0 + Σ Δ − e_T, Δ being what the cohorts moved on average from what they received."""
    algorithm = code(ALGORITHMS[name].make(), up=None)
    done: list[Round] = Toy(tmp_path).run(algorithm, until=20)
    for role in done[0].state.public:
        for key, start in algorithm.server.init(tree(1)).public[role].items():
            moved = sum(
                one.state.public[role][key].double() - one.order.public[role][key].double()
                for one in done
            )
            left = done[-1].state.private[UNSENT + role][key].double()
            expected = start.double() + moved - left
            torch.testing.assert_close(
                done[-1].state.public[role][key].double(), expected, rtol=0, atol=2e-5
            )


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_scaffolds_control_is_the_mean_of_its_clients_but_for_what_is_yet_unsent(bits, tmp_path):
    """Σ c_i⁺ − c_i arrives in the end: else each round's rounding would stay in c and turn all steps."""
    toy = Toy(tmp_path)
    algorithm = compressed(ALGORITHMS["scaffold"].make(), Whole(bits, 64), None)
    engine = toy.engine(algorithm, dropout=0.2)
    policy = toy_policy(3, minimum=1, attempts=9)
    *_, done = toy.run(algorithm, engine=engine, policy=policy, until=30)
    homes = [engine.homes.load(c.id, done.state.round).payload for c in toy.population]
    for name, found in done.state.public["control"].items():
        mean = sum(home["control"][name].double() for home in homes) / len(homes)
        unsent = [home.get(UNSENT + "control", {}).get(name, torch.zeros(())) for home in homes]
        left = sum(kept.double() for kept in unsent) / len(homes)
        torch.testing.assert_close(found.double() + left, mean, rtol=0, atol=1e-5)
        assert float(left.norm()) < 0.5**bits * sum(float(h["control"][name].norm()) for h in homes)
