from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import Mean, Replace, fedavg
from fedit.core.messages import ADAPTER, Order, State, Update
from fedit.core.sums import Sum
from fedit.core.tree import same
from tests import toy as toys
from tests.toy import RATE, STEPS, Toy, last, toy_policy, tree


def test_three_rounds_are_what_numpy_says(tmp_path, monkeypatch):
    """McMahan's Algorithm 1 with momentum SGD on quadratics, worked out in fp64 from the formulas."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    toy = Toy(tmp_path, clients=4)
    got = last(toy.run(fedavg(), policy=toy_policy(1.0), until=3))

    sizes = np.array([c.examples for c in toy.population], dtype=np.float64)
    for name, value in tree(1).items():
        w = value.numpy().astype(np.float64)
        targets = [toy.trainer.targets[c.id][name].numpy() for c in toy.population]
        for _ in range(3):
            fitted = []
            for target in targets:
                w_k, v = w.copy(), np.zeros_like(w)
                for _ in range(STEPS):
                    v = 0.5 * v + (w_k - target)
                    w_k = w_k - RATE * v
                fitted.append(w_k)
            w = np.tensordot(sizes / sizes.sum(), np.stack(fitted), axes=1)
        np.testing.assert_allclose(got[name].numpy(), w, rtol=2e-6, atol=2e-6)


def order(pace: float = 1.0) -> Order:
    names = frozenset(tree(1))
    return Order(0, 0, 0, {ADAPTER: tree(1)}, {"a": 1.0}, names, names, pace)


def total(updates: dict[float, dict]) -> Sum:
    combine = Mean()
    found = combine.start(order())
    for weight, payload in updates.items():
        asked = replace(order(), weights={"a": weight})
        found = combine.add(found, Update("a", 0, 0, payload), asked)
    return found


def test_the_sum_is_fp64_and_leaves_the_updates_alone():
    sent = {ADAPTER: {"w": torch.tensor([1.0], dtype=torch.bfloat16)}}
    found = total({0.25: sent, 0.5: sent})
    assert found.sums()["w"].dtype == torch.float64
    assert found.sums()["w"].item() == 0.75
    assert found.mass() == 0.75
    assert sent[ADAPTER]["w"].item() == 1.0


def test_small_updates_are_not_lost_in_a_large_sum():
    """10⁴ times 1e-8 beside 1 vanishes in fp32 one by one; in fp64 it does not."""
    combine = Mean()
    found = combine.add(
        combine.start(order()), Update("a", 0, 0, {ADAPTER: {"w": torch.ones(1)}}), order()
    )
    for _ in range(10_000):
        tiny = Update("a", 0, 0, {ADAPTER: {"w": torch.full((1,), 1e-8)}})
        found = combine.add(found, tiny, order())
    assert found.sums()["w"].item() == pytest.approx(1 + 1e-4, rel=1e-9)


def test_every_role_has_its_own_mean():
    found = total(
        {1.0: {ADAPTER: tree(2), "control": tree(3)}, 3.0: {ADAPTER: tree(4), "control": tree(5)}}
    )
    for name in tree(1):
        wanted = (tree(3)[name].double() + 3 * tree(5)[name].double()) / 4
        torch.testing.assert_close(found.mean("control")[name], wanted, rtol=1e-15, atol=1e-15)
    assert found.mean("unheard of") == {}


def test_pace_one_is_the_mean_itself_bit_for_bit():
    """w + (w_k − w) would not be w_k."""
    stepped = Replace().step(
        State(0, {ADAPTER: tree(1)}), total({7.0: {ADAPTER: tree(2)}}), order()
    )
    assert same(stepped.adapter, tree(2))
    naive = {n: tree(1)[n] + (tree(2)[n] - tree(1)[n]) for n in tree(1)}
    assert not same(naive, tree(2))


def test_what_did_not_travel_and_other_roles_stay_and_dtypes_hold():
    a, b = tree(1)
    before = {a: tree(1)[a].bfloat16(), b: tree(1)[b]}
    state = State(4, {ADAPTER: before, "base": tree(8)}, {"moments": tree(9)})
    after = Replace().step(state, total({1.0: {ADAPTER: {a: tree(2)[a].bfloat16()}}}), order())
    assert after.adapter[a].dtype == torch.bfloat16
    assert torch.equal(after.adapter[a], tree(2)[a].bfloat16())
    assert torch.equal(after.adapter[b], tree(1)[b])
    assert same(after.public["base"], tree(8))
    assert same(after.private["moments"], tree(9))
    assert same(state.adapter, before)


def test_the_rule_is_linear_and_says_so():
    assert fedavg().combine.linear
    assert fedavg().local.roles == ()
