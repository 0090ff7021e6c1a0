"""Updates in a short form that no client of ours would send, and the plan's words for what may be."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.ifca import CLUSTER, ifca, role_of
from fedit.core.codes import Bf16, Code, Largest, Whole
from fedit.core.messages import ADAPTER, Home, Order, Update
from fedit.core.packing import UNSENT, Downward, Upward, compressed
from fedit.core.seats import from_received
from fedit.core.tree import same, spec
from fedit.core.wire import WireError, pack, unpack
from fedit.engines.messages import pack_order, unpack_order
from tests.toy import Toy, last, toy_policy, tree

WHOLE = Whole(4, 4)


@dataclass
class Forged:
    """An engine in which what one client sends is something else."""

    inner: object
    forge: object

    def clients(self):
        return self.inner.clients()

    def ask(self, order):
        for reply in self.inner.ask(order):
            yield self.forge(reply) if reply.client == "c1" else reply

    def take_back(self, order, clients):
        self.inner.take_back(order, clients)


def part(name: str, tensor: torch.Tensor):
    def forge(update: Update) -> Update:
        return replace(update, payload={ADAPTER: {**update.payload[ADAPTER], name: tensor}})

    return forge


def numbers(*values: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.tensor(values).to(dtype)


FORGED: dict[str, tuple[Code, object, str]] = {
    "as it is": (WHOLE, lambda u: replace(u, payload={ADAPTER: tree(3)}), "names"),
    "nothing": (WHOLE, lambda u: replace(u, payload={}), "roles"),
    "another role": (
        WHOLE,
        lambda u: replace(u, payload={**u.payload, "control": u.payload[ADAPTER]}),
        "roles",
    ),
    "an empty role": (WHOLE, lambda u: replace(u, payload={ADAPTER: {}}), "names"),
    "one part more": (WHOLE, part("more", torch.zeros(1)), "names"),
    "too few codes": (WHOLE, part("codes", numbers(*[0] * 7)), "shape"),
    "codes as int8": (WHOLE, part("codes", numbers(*[0] * 8, dtype=torch.int8)), "dtype"),
    "no such number": (WHOLE, part("codes", numbers(*[0x88] * 8)), "packed"),
    "too many groups": (WHOLE, part("scales", torch.zeros(9, dtype=torch.bfloat16)), "shape"),
    "scale NaN": (WHOLE, part("scales", torch.full((5,), math.nan).bfloat16()), "packed"),
    "scale infinite": (WHOLE, part("scales", torch.full((5,), math.inf).bfloat16()), "packed"),
    "scale negative": (WHOLE, part("scales", torch.full((5,), -1.0).bfloat16()), "packed"),
    "scale that overflows": (
        Whole(8, 4),
        lambda u: replace(
            u,
            payload={
                ADAPTER: {
                    "codes": torch.full((16,), 127, dtype=torch.uint8),
                    "scales": torch.full((5,), 3e38).bfloat16(),
                }
            },
        ),
        "not finite",
    ),
    "NaN": (Bf16(), part("values", torch.full((16,), math.nan).bfloat16()), "not finite"),
    "place twice": (Largest(0.2), part("places", numbers(1, 1, 12, dtype=torch.uint16)), "packed"),
    "place beyond": (
        Largest(0.2),
        part("places", numbers(1, 2, 16, dtype=torch.uint16)),
        "packed",
    ),
    "places fall": (Largest(0.2), part("places", numbers(2, 1, 12, dtype=torch.uint16)), "packed"),
    "negative count": (Largest(0.2), part("counts", numbers(-3, dtype=torch.int32)), "packed"),
    "huge count": (Largest(0.2), part("counts", numbers(2**31 - 1, dtype=torch.int32)), "packed"),
    "stale": (WHOLE, lambda u: replace(u, round=u.round + 1), "stale"),
}


@pytest.mark.parametrize("case", FORGED.values(), ids=FORGED.keys())
def test_a_forged_update_is_a_failure_and_the_round_goes_on_without_it(case, tmp_path):
    code, forge, reason = case
    algorithm, toy = compressed(fedavg(), code, None), Toy(tmp_path)
    engine = Forged(toy.engine(algorithm), forge)
    policy = toy_policy(1.0, minimum=0.5)
    [done] = toy.run(algorithm, engine=engine, policy=policy, until=1)
    assert [(f.client, f.reason) for f in done.failures] == [("c1", reason)]
    assert len(done.metrics) == 5
    assert all(bool(torch.isfinite(t).all()) for t in last([done]).values())


@pytest.mark.parametrize("said", [None, 7.0, -1.0, 0.5, math.nan, math.inf])
def test_a_cluster_that_does_not_exist_is_a_failure(said, tmp_path):
    def forge(update: Update) -> Update:
        metrics = {k: v for k, v in update.metrics.items() if k != CLUSTER}
        return replace(update, metrics=metrics if said is None else {**metrics, CLUSTER: said})

    algorithm, toy = compressed(ifca(2), WHOLE, None), Toy(tmp_path)
    engine = Forged(toy.engine(algorithm), forge)
    [done] = toy.run(algorithm, engine=engine, policy=toy_policy(1.0, minimum=0.5), until=1)
    assert [(f.client, f.reason) for f in done.failures] == [("c1", "metrics")]


def test_a_cluster_is_compared_with_its_own_model(tmp_path):
    """Differences to another cluster's would be large, and so would be what rounding does to them."""
    toy = Toy(tmp_path)
    start = ifca(2).server.init(tree(1))
    home = replace(start, public={**start.public, role_of(1): toy.trainer.targets["c1"]})
    options = {"state": home, "until": 1, "policy": toy_policy(1.0)}
    [done] = toy.run(compressed(ifca(2), Whole(4, 16), None), place="a", **options)
    [plain] = toy.run(ifca(2), place="b", **options)
    assert [c for c, m in done.metrics.items() if m[CLUSTER] == 1.0] == ["c1"]
    for name, values in plain.state.public[role_of(1)].items():
        torch.testing.assert_close(done.state.public[role_of(1)][name], values, rtol=0, atol=0.02)


def test_draws_differ_by_client_round_and_attempt_and_further_roles_are_remembered_instead():
    guard, names = Upward(WHOLE, from_received), frozenset(tree(1))

    def bits(client="c0", round=0, attempt=0, seed=0, role=ADAPTER) -> bytes:
        order = Order(round, attempt, seed, {ADAPTER: tree(1)}, {}, names, names)
        payload = {ADAPTER: tree(2), **({role: tree(5)} if role != ADAPTER else {})}
        moved = replace(
            order, public={ADAPTER: {n: torch.zeros_like(t) for n, t in tree(1).items()}}
        )
        update = Update(client, round, attempt, payload)
        sealed, kept = guard.seal(update, moved, Home())
        assert kept.keys() == ({UNSENT + role} if role != ADAPTER else set())
        return sealed.payload[role]["codes"].numpy().tobytes()

    usual = bits()
    assert usual == bits()
    others = [bits(client="c1"), bits(round=1), bits(attempt=1), bits(seed=1)]
    assert len({usual, *others}) == 5
    assert bits(role="x") == bits(role="y", client="c1"), "to the nearest"


def test_a_frozen_number_is_sent_as_zero_whatever_is_drawn():
    guard, names = Upward(Whole(4, 16), from_received), frozenset(tree(1))
    order = Order(0, 0, 0, {ADAPTER: tree(1)}, {"c0": 1.0}, names, names)
    fitted = {n: t + (n == "layer.lora_B") for n, t in tree(1).items()}
    sealed, _ = guard.seal(Update("c0", 0, 0, {ADAPTER: fitted}), order, Home())
    plain = {ADAPTER: spec(tree(1))}
    found = guard.open(sealed, order, plain).payload[ADAPTER]
    assert torch.equal(found["layer.lora_A"], tree(1)["layer.lora_A"])
    torch.testing.assert_close(found["layer.lora_B"], fitted["layer.lora_B"], rtol=0, atol=0.01)


def test_the_server_remembers_what_clients_did_not_receive():
    state = fedavg().server.init(tree(1))
    sent = Downward(WHOLE)(state)
    assert not sent.state.private
    for name, start in tree(1).items():
        received = sent.state.adapter[name]
        assert not torch.equal(received, start)
        assert torch.equal(received + sent.memory[UNSENT + ADAPTER][name], start)
    again = Downward(WHOLE)(replace(sent.state, private={**sent.memory, "moments": tree(4)}))
    assert same(again.state.adapter, sent.state.adapter)
    assert again.state.private.keys() == {"moments"}


def test_what_is_not_in_fp32_goes_out_as_it_is():
    state = fedavg().server.init(tree(1))
    counts = {"n": torch.arange(3)}
    sent = Downward(WHOLE)(replace(state, public={**state.public, "counts": counts}))
    assert same(sent.state.public["counts"], counts)
    assert sent.packed.payload.keys() == {ADAPTER}


def test_an_order_says_wrongly_what_it_is_packed_from(tmp_path):
    [done] = Toy(tmp_path).run(compressed(fedavg(), None, WHOLE), until=1)
    payload, envelope = unpack(pack_order(done.order, done.order.cohort[0]))
    said = envelope["packed"]
    [like] = said["like"]
    wrong = [
        {**said, "code": {"kind": "int7", "group": 4}},
        {**said, "code": {"kind": "int4", "group": 5}},
        {**said, "like": [{**like, "names": like["names"][:1]}]},
        {**said, "like": [{**like, "names": [like["names"][0]] * 2}]},
        {**said, "like": [{**like, "names": [1, 2]}]},
        {**said, "like": [{**like, "shapes": [[2, 5], [3, 3]]}]},
        {**said, "like": [{**like, "shapes": [[2, 5], [-3, -2]]}]},
        {**said, "like": [{**like, "shapes": [[2, 5], [2**30, 2**30]]}]},
        {**said, "like": [{**like, "shapes": [[2, 5], [True, 6]]}]},
        {**said, "like": [{**like, "roles": ["other"]}]},
        {**said, "like": 3},
        {},
        None,
    ]
    for one in wrong:
        with pytest.raises(WireError, match="not a packed order"):
            unpack_order(pack(payload, {**envelope, "packed": one}))
    for places in ([2], [-1], ["layer.lora_A"], 1, [[0]]):
        with pytest.raises(WireError):
            unpack_order(pack(payload, {**envelope, "trains": places}))
