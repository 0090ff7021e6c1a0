"""What combining loses, measured through random columns: nothing where the method is exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.exactness import COLUMNS, measured, sketch
from fedit.algorithms.fedavg import Mean, fedavg
from fedit.algorithms.fedavgm import Momentum
from fedit.algorithms.fedex_lora import fedex_lora
from fedit.algorithms.fedsa_lora import fedsa_lora
from fedit.algorithms.ffa_lora import ffa_lora
from fedit.algorithms.flexlora import flexlora
from fedit.algorithms.flora import flora
from fedit.algorithms.hetlora import hetlora
from fedit.algorithms.ranks import with_ranks
from fedit.algorithms.rolora import rolora
from fedit.build import algorithms
from fedit.core.tree import same
from fedit.recipe import make_plan
from tests.factors import (
    B_NAMES,
    LAYERS,
    WEIGHTS,
    S,
    answers,
    asked,
    ba,
    factors,
    mean_ba,
    near,
    step,
    total_of,
    trainer,
)

START = factors(1)
SENT = {client: factors(10 + n) for n, client in enumerate(WEIGHTS)}
RANKS = {"a": 1, "b": 2, "c": 4}
MIXED = {client: factors(10 + rank, rank) for client, rank in RANKS.items()}


def told(algorithm, start=START, updates=SENT, pace: float = 1.0):
    """What the algorithm tells of a round."""
    state = algorithm.server.init(start)
    order = asked(algorithm, state, pace)
    total = total_of(algorithm, order, updates)
    return algorithm.measure(state, algorithm.server.step(state, total, order), total, order)


def columns(layer: str, seed: int = 7) -> np.ndarray:
    """Ω, as the sketch of a layer whose product is the identity gives it back."""
    unit = torch.eye(LAYERS[layer][1])
    tree = {f"{layer}.lora_A.weight": unit, f"{layer}.lora_B.weight": unit}
    return sketch(tree, seed)[layer].numpy()


def norm(matrices) -> float:
    return float(np.sqrt(sum(np.square(m).sum() for m in matrices)))


def test_a_sketch_is_the_product_with_columns_of_the_runs_seed_and_the_layer():
    for layer, (out, into) in LAYERS.items():
        omega = columns(layer)
        assert omega.shape == (into, COLUMNS)
        found = sketch(START, 7)[layer]
        assert found.shape == (out, COLUMNS)
        near(found, ba(START, layer) @ omega, 1e-14)
    assert not np.allclose(columns("up"), columns("up", seed=8))
    assert not np.allclose(columns("up")[:5], columns("down")[:5])


def test_what_fedavg_loses_is_the_spread_of_the_factors():
    """Σ p B A − B̄ Ā = ½ Σ_ij p_i p_j (B_i − B_j)(A_i − A_j), over how far the mean moved."""
    lost, learned = [], []
    for layer in LAYERS:
        spread = np.zeros(LAYERS[layer])
        for i, p in WEIGHTS.items():
            for j, q in WEIGHTS.items():
                apart = {name: SENT[i][name].double() - SENT[j][name].double() for name in SENT[i]}
                spread += 0.5 * p * q * ba(apart, layer)
        omega = columns(layer)
        lost.append(spread @ omega)
        learned.append((mean_ba(SENT, layer) - ba(START, layer)) @ omega)
    found = told(measured(fedavg(), S))
    assert found.keys() == {"lost"}
    assert found["lost"] == pytest.approx(norm(lost) / norm(learned), rel=1e-5)
    assert found["lost"] > 0.1


def test_on_layers_of_some_size_it_is_the_share_of_the_norms_themselves():
    def large(seed: int):
        rng = torch.Generator().manual_seed(seed)
        return {
            f"{layer}.lora_{x}": torch.randn((4, 60) if x == "A" else (80, 4), generator=rng)
            for layer in "kqv"
            for x in "AB"
        }

    start, sent = large(0), {client: large(1 + n) for n, client in enumerate(WEIGHTS)}

    def product(tree, layer):
        return tree[f"{layer}.lora_B"].numpy() @ tree[f"{layer}.lora_A"].numpy()

    mean = {n: sum(p * sent[c][n] for c, p in WEIGHTS.items()) for n in start}
    means = {y: sum(p * product(sent[c], y) for c, p in WEIGHTS.items()) for y in "kqv"}
    lost = norm(product(mean, y) - means[y] for y in "kqv")
    wanted = lost / norm(means[y] - product(start, y) for y in "kqv")
    assert told(measured(fedavg(), S), start, sent)["lost"] == pytest.approx(wanted, rel=0.15)


EXACT = {
    "fedex_lora": (fedex_lora(S), START, SENT),
    "flora": (flora(S), {n: t * ("lora_A" in n) for n, t in START.items()}, SENT),
    "flexlora": (flexlora(), factors(1, 7), SENT),
    "ffa_lora": (ffa_lora(), START, {c: {n: t[n] for n in B_NAMES} for c, t in SENT.items()}),
    "rolora": (rolora(), START, {c: {n: t[n] for n in B_NAMES} for c, t in SENT.items()}),
    "flora, mixed": (
        with_ranks(flora(S), RANKS, 4),
        {n: t * ("lora_A" in n) for n, t in factors(1, 4).items()},
        MIXED,
    ),
    "one client": (fedavg(), START, dict.fromkeys(WEIGHTS, SENT["a"])),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_lose_nothing(name):
    algorithm, start, updates = EXACT[name]
    assert told(measured(algorithm, S), start, updates)["lost"] < 1e-6


@pytest.mark.parametrize("name", ["fedavg", "hetlora, mixed", "flexlora, mixed"])
def test_others_lose_something(name):
    made = {
        "fedavg": (fedavg(), START, SENT),
        "hetlora, mixed": (with_ranks(hetlora(4), RANKS, 4), factors(1, 4), MIXED),
        "flexlora, mixed": (with_ranks(flexlora(), RANKS, 4), factors(1, 4), MIXED),
    }
    algorithm, start, updates = made[name]
    assert told(measured(algorithm, S), start, updates)["lost"] > 0.01


def test_it_stays_0_over_rounds_in_which_the_base_changes():
    algorithm = measured(fedex_lora(S), S)
    state = algorithm.server.init(START)
    for _ in range(3):
        order = asked(algorithm, state)
        sent = {c: u for c, (u, _) in answers(algorithm, order, trainer()).items()}
        total = total_of(algorithm, order, sent)
        after = replace(algorithm.server.step(state, total, order), round=state.round + 1)
        assert algorithm.measure(state, after, total, order)["lost"] < 1e-5
        state = after


def test_a_servers_own_step_is_told_as_how_far_from_the_mean_it_led():
    halved = replace(ffa_lora(), server=Momentum(lr=0.5, beta=0.0))
    _, start, updates = EXACT["ffa_lora"]
    assert told(measured(halved, S), start, updates)["lost"] == pytest.approx(0.5, rel=1e-6)


def test_nothing_is_told_where_nothing_was_learned_or_nobody_replied():
    assert told(measured(fedavg(), S), START, dict.fromkeys(WEIGHTS, START)) == {}
    algorithm = measured(fedavg(), S)
    state = algorithm.server.init(START)
    order = asked(algorithm, state)
    assert algorithm.measure(state, state, algorithm.combine.start(order), order) == {}


def test_fedsa_whose_b_nobody_sends_tells_nothing():
    start = {n: t * ("lora_A" in n) for n, t in START.items()}
    sent = {c: {n: t for n, t in tree.items() if n not in B_NAMES} for c, tree in SENT.items()}
    assert told(measured(fedsa_lora(), S), start, sent) == {}


@pytest.mark.parametrize("made", [fedavg, lambda: fedex_lora(S), lambda: flora(S), flexlora])
def test_measuring_changes_no_bit_and_sends_none(made):
    results = []
    for algorithm in (made(), measured(made(), S)):
        state = algorithm.server.init(START)
        order = asked(algorithm, state)
        sent = {c: u for c, (u, _) in answers(algorithm, order, trainer()).items()}
        assert {role for u in sent.values() for role in u.payload} == {"adapter"}
        results.append(step(algorithm, state, order, sent))
    assert results[0].public.keys() == results[1].public.keys()
    assert all(same(results[0].public[r], results[1].public[r]) for r in results[0].public)


@pytest.mark.parametrize("own", [{"combine": Mean(linear=False)}, {"measure": lambda *seen: {}}])
def test_a_method_with_a_total_or_a_measure_of_its_own_is_left_alone(own, monkeypatch):
    """Its total may be anything, which nobody else can look into."""
    made = replace(fedavg(), **own)
    entry = type("Entry", (), {"name": "own", "load": lambda self: lambda population: made})()
    monkeypatch.setattr(algorithms, "entry_points", lambda group: [entry])
    plan = make_plan(
        {
            "model": {"base": "m"},
            "data": {"train": "microworld"},
            "algorithm": {"name": "external", "entry": "own"},
        }
    )
    assert algorithms.make_algorithm(plan, ()) is made
