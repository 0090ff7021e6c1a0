"""How far an update moves, against numpy; and the bounds made of it, over rounds and resumes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedsa_lora import fedsa_lora
from fedit.algorithms.ffa_lora import ffa_lora
from fedit.algorithms.hetlora import hetlora
from fedit.algorithms.ranks import with_ranks
from fedit.algorithms.scaffold import CONTROL, scaffold
from fedit.core.messages import ADAPTER, Order, State, Update
from fedit.core.norms import FACTORS, MEDIANS, NO_BOUNDS, ROUNDS, Bounds, change_norm, norms
from fedit.core.rounds import TooFewReplies
from fedit.core.tree import same
from fedit.core.wire import pack, unpack_own
from fedit.engines.messages import pack_order
from tests.toy import Toy, last, toy_policy, tree

A, B = "layer.lora_A", "layer.lora_B"
EVERY = frozenset([A, B, "bias"])


def array(t):
    return t.double().numpy()


def product(of):
    return array(of[B]) @ array(of[A])


def test_the_change_of_a_layer_is_that_of_its_product():
    old, new = tree(1), tree(2)
    wanted = np.linalg.norm(product(new) - product(old))
    assert change_norm(new, old, EVERY) == pytest.approx(wanted, rel=1e-12)


def test_it_is_the_same_in_every_gauge():
    old, new = tree(1), tree(2)
    q = torch.tensor([[3.0, 1.0], [0.5, -2.0]])
    turned = {A: torch.linalg.inv(q) @ new[A], B: new[B] @ q}
    assert change_norm(turned, old, EVERY) == pytest.approx(change_norm(new, old, EVERY), rel=1e-6)


def test_a_change_that_only_turns_the_factors_is_none():
    old = tree(1)
    turned = {A: old[A] / 4, B: old[B] * 4}
    assert change_norm(turned, old, EVERY) < 1e-6


def test_what_is_no_pair_counts_number_by_number():
    old, new = ({**tree(s), "bias": torch.randn(7)} for s in (1, 2))
    wanted = math.hypot(
        np.linalg.norm(product(new) - product(old)),
        np.linalg.norm(array(new["bias"]) - array(old["bias"])),
    )
    assert change_norm(new, old, EVERY) == pytest.approx(wanted, rel=1e-12)


def test_a_factor_whose_fellow_is_frozen_makes_a_product_with_it():
    old, new = tree(1), tree(2)
    wanted = np.linalg.norm(array(new[B]) @ array(old[A]) - product(old))
    assert change_norm({B: new[B]}, old, frozenset([B])) == pytest.approx(wanted, rel=1e-12)


def test_a_factor_whose_fellow_trains_at_home_counts_by_itself():
    old, new = tree(1), tree(2)
    wanted = np.linalg.norm(array(new[A]) - array(old[A]))
    assert change_norm({A: new[A]}, old, EVERY) == pytest.approx(wanted, rel=1e-12)


def test_what_is_too_large_to_square_is_not_small():
    huge = {name: torch.full_like(t, 1e300, dtype=torch.float64) for name, t in tree(1).items()}
    assert not change_norm(huge, tree(1), EVERY) < 1e300


def order(caps):
    return Order(0, 0, 0, {ADAPTER: tree(1)}, {"c0": 1.0}, EVERY, EVERY, caps=caps)


def test_only_roles_with_caps_are_measured():
    update = Update("c0", 0, 0, {ADAPTER: tree(2), CONTROL: tree(3)})
    found = norms(update, order({ADAPTER: 1.0, CONTROL: math.inf}))
    control = math.sqrt(sum(float(np.square(array(t)).sum()) for t in tree(3).values()))
    assert found["control_norm"] == pytest.approx(control)
    assert found.keys() == {"adapter_norm", "control_norm"}
    assert norms(update, order({})) == {}


def state(**medians) -> State:
    kept = {role: torch.tensor(values, dtype=torch.float64) for role, values in medians.items()}
    return State(9, {ADAPTER: {"bias": torch.ones(1)}}, {MEDIANS: kept} if kept else {})


@pytest.mark.parametrize(
    ("bounds", "before", "caps"),
    [
        (NO_BOUNDS, {"adapter": [1.0]}, {}),
        (Bounds(norm=2.0), {}, {"adapter": 2.0, "control": math.inf}),
        (Bounds(times_median=3.0), {}, {"adapter": math.inf, "control": math.inf}),
        (Bounds(None, 3.0), {"adapter": [1.0, 9.0, 2.0]}, {"adapter": 6.0, "control": math.inf}),
        (
            Bounds(5.0, 3.0),
            {"adapter": [2.0], "control": [7.0, 9.0]},
            {"adapter": 5.0, "control": 24.0},
        ),
        (Bounds(None, 3.0), {"adapter": [0.0]}, {"adapter": math.inf, "control": math.inf}),
    ],
)
def test_caps_are_the_least_of_what_bounds_say(bounds, before, caps):
    assert bounds.caps(state(**before), ("control",)) == caps


def test_factors_have_a_cap_of_their_own_where_there_are_any():
    lora = State(0, {ADAPTER: tree(1)})
    assert Bounds(norm=2.0).caps(lora, ()) == {ADAPTER: 2.0, FACTORS: math.inf}
    assert Bounds(factors=3.0).caps(lora, ()) == {ADAPTER: math.inf, FACTORS: 3.0}
    found = norms(Update("c0", 0, 0, {ADAPTER: tree(2)}), order({FACTORS: 1.0}))
    wanted = math.sqrt(sum(np.square(array(tree(2)[n]) - array(tree(1)[n])).sum() for n in (A, B)))
    assert found == {"factors_norm": pytest.approx(wanted, rel=1e-6)}


def test_a_large_change_does_not_hide_behind_numbers_that_cancel():
    """[b, −b'] [a; a] with b and b' next to each other: squares of 1e32 would bury it."""
    b, a = torch.full((3, 1), 1e12), torch.full((1, 5), 1e4)
    sent = {A: torch.cat([a, a]), B: torch.cat([b, -torch.nextafter(b, b * 2)], dim=1)}
    wanted = np.linalg.norm(product(sent) - product(tree(1)))
    assert wanted > 1e9
    assert change_norm(sent, tree(1), EVERY) == pytest.approx(wanted, rel=1e-6)


def test_the_last_rounds_medians_are_kept_and_no_more():
    now, asked = State(0, {}), order({ADAPTER: math.inf})
    for round in range(ROUNDS + 2):
        accepted = {f"c{i}": {"adapter_norm": float(round + i)} for i in range(3)}
        now = Bounds(times_median=2.0).remember(now, State(round, {}), accepted, asked)
    assert now.private[MEDIANS][ADAPTER].tolist() == [3.0, 4.0, 5.0, 6.0, 7.0]
    other = State(9, {}, {"moments": tree(1)})
    kept = Bounds(times_median=2.0).remember(now, other, {}, asked)
    assert kept is other
    assert Bounds(norm=1.0).remember(now, other, {"c0": {}}, asked) is other


BOUNDED = toy_policy(1.0, minimum=1, bounds=Bounds(norm=2.6, times_median=1.05))
METHODS = {
    "fedavg": fedavg,
    "scaffold": lambda: scaffold(6),
    "ffa_lora": ffa_lora,
    "fedsa_lora": fedsa_lora,
    "ranks": lambda: with_ranks(hetlora(2), {f"c{i}": 1 + i % 2 for i in range(6)}, 2),
}


@pytest.mark.parametrize("groups", [32, 2])
@pytest.mark.parametrize("method", METHODS)
def test_engines_refuse_the_same_updates_and_agree_bit_for_bit(
    method, groups, tmp_path, monkeypatch
):
    monkeypatch.setattr("fedit.core.shares.GROUPS", groups)
    results, refused = [], []
    for kind in ("inprocess", "loopback", "hosted"):
        toy, algorithm = Toy(tmp_path / kind), METHODS[method]()
        done = toy.run(algorithm, kind, policy=BOUNDED, until=4)
        results.append((last(done), done[-1].state.private[MEDIANS]))
        refused.append([{f.client: (f.reason, f.detail) for f in one.failures} for one in done])
    assert refused[0] == refused[1] == refused[2]
    assert any(reason == "norm" for one in refused[0] for reason, _ in one.values())
    assert all(same(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_bounds_that_refuse_nobody_change_no_bit(tmp_path):
    plain = Toy(tmp_path / "a").run(fedavg())
    wide = Bounds(norm=1e6, times_median=1e6)
    bounded = Toy(tmp_path / "b").run(fedavg(), policy=toy_policy(bounds=wide))
    assert same(last(plain), last(bounded))
    assert MEDIANS not in plain[-1].state.private
    assert "adapter_norm" not in plain[-1].metrics[plain[-1].order.cohort[0]]


def test_the_median_survives_a_resume(tmp_path):
    whole = Toy(tmp_path / "whole").run(fedavg(), policy=BOUNDED, until=6)
    assert any(one.failures for one in whole[3:])
    toy = Toy(tmp_path / "cut")
    half = toy.run(fedavg(), policy=BOUNDED, until=3)[-1].state
    kept = [unpack_own(pack(part, {}))[0] for part in (half.public, half.private)]
    rest = toy.run(fedavg(), policy=BOUNDED, until=6, state=State(3, *kept))
    assert same(last(rest), last(whole))
    assert [one.failures for one in rest] == [one.failures for one in whole[3:]]


def test_a_client_is_not_told_the_bounds(tmp_path):
    """Who knows how large an update may be makes it as large."""
    done = Toy(tmp_path).run(fedavg(), policy=BOUNDED, until=2)
    asked = done[-1].order
    assert asked.caps[ADAPTER] > 0
    assert pack_order(asked, "c0") == pack_order(replace(asked, caps={}), "c0")


def test_a_bound_that_nobody_meets_stops_the_run_and_says_so(tmp_path):
    policy = toy_policy(1.0, bounds=Bounds(norm=1e-9))
    with pytest.raises(TooFewReplies, match=r"0 of 6 clients replied.*norm.*at most 1e-09"):
        Toy(tmp_path).run(fedavg(), policy=policy, until=1)
