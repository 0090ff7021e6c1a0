"""FedRot-LoRA (arXiv 2602.23638): factors are turned, their product is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes, polar

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedrot_lora import fedrot_lora
from fedit.core.errors import FeditError
from fedit.core.fitting import Fit
from fedit.core.messages import ADAPTER
from fedit.core.tree import same
from tests.factors import LAYERS, WEIGHTS, answers, asked, ba, factors, near, step, trainer

START = factors(1, 3)
FITTED = {client: factors(10 + n, 3) for n, client in enumerate(WEIGHTS)}


class Given:
    """A trainer that comes to given factors."""

    def __init__(self, fitted):
        self.fitted = fitted

    def fit(self, client, order, start, aim, memory):
        return Fit(self.fitted[client])


def sent(strength: float, round: int = 0, fitted=FITTED):
    """What each client sends in that round."""
    algorithm = fedrot_lora(strength)
    state = replace(algorithm.server.init(START), round=round)
    replies = answers(algorithm, asked(algorithm, state), Given(fitted))
    return {client: update.payload[ADAPTER] for client, (update, _) in replies.items()}


def f64(tree, layer: str, x: str) -> np.ndarray:
    return tree[f"{layer}.lora_{x}.weight"].numpy().astype(float)


@pytest.mark.parametrize("round", [0, 1])
@pytest.mark.parametrize("strength", [0.0, 0.3, 0.5, 1.0])
def test_the_product_stays(strength, round):
    for client, tree in sent(strength, round).items():
        for layer in LAYERS:
            near(ba(tree, layer), ba(FITTED[client], layer), 2e-6)


@pytest.mark.parametrize("round", [0, 1])
def test_without_strength_no_bit_changes(round):
    assert all(same(tree, FITTED[client]) for client, tree in sent(0.0, round).items())


@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("client", WEIGHTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_both_factors_are_turned_nearest_to_those_received(strength, client, layer):
    """Orthogonal Procrustes and the polar factor as scipy has them."""
    own = FITTED[client]
    a, b = f64(own, layer, "A"), f64(own, layer, "B")
    both, received = np.vstack([a.T, b]), (f64(START, layer, "A"), f64(START, layer, "B"))
    nearest, _ = orthogonal_procrustes(both, np.vstack([received[0].T, received[1]]))
    kept = 1 - strength + 1e-9  # mirrored directions stay half way, see below
    turn, _ = polar(kept * np.eye(3) + strength * nearest)
    near(turn @ turn.T, np.eye(3), 1e-12)
    for round in (0, 1):
        found = sent(strength, round)[client]
        near(f64(found, layer, "A"), turn.T @ a)
        near(f64(found, layer, "B"), b @ turn)


def test_the_full_turn_brings_the_factors_nearer_to_those_received():
    for client, tree in sent(1.0).items():
        for layer in LAYERS:
            far = [
                sum(np.linalg.norm(f64(t, layer, x) - f64(START, layer, x)) ** 2 for x in "AB")
                for t in (tree, FITTED[client])
            ]
            assert far[0] < 0.95 * far[1]


def test_clients_that_differ_by_a_turn_only_lose_nothing():
    """FedAvg would average the turns away."""
    turned = {}
    for number, client in enumerate(WEIGHTS):
        rng = torch.Generator().manual_seed(number)
        turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))
        turned[client] = {
            name: (turn.T @ t.double() if "lora_A" in name else t.double() @ turn).float()
            for name, t in START.items()
        }
    state = fedavg().server.init(START)
    order = asked(fedavg(), state)
    plain = step(fedavg(), state, order, turned)
    for number in (0, 1):
        ours = step(fedavg(), state, order, sent(1.0, number, turned))
        for layer in LAYERS:
            near(ba(ours.adapter, layer), ba(START, layer), 5e-6)
            with pytest.raises(AssertionError):
                near(ba(plain.adapter, layer), ba(START, layer), 0.1)


@pytest.mark.parametrize(("strength", "back"), [(0.3, False), (0.5, False), (0.6, True)])
def test_a_mirrored_direction_is_turned_back_from_above_one_half(strength, back):
    """Half way it has no length, and rounding would choose."""
    sign = torch.tensor([-1.0, 1.0, 1.0])
    mirrored = {n: sign[:, None] * t if "lora_A" in n else t * sign for n, t in START.items()}
    for round in (0, 1):
        for tree in sent(strength, round, dict.fromkeys(WEIGHTS, mirrored)).values():
            for name, value in (START if back else mirrored).items():
                near(tree[name], value.numpy())


def test_a_b_of_zeros_does_no_harm():
    """As received in the first round, and fitted by a client whose gradients vanish."""
    zero = {name: t * ("lora_A" in name) for name, t in START.items()}
    algorithm = fedrot_lora(0.5)
    for round in (0, 1):
        state = replace(algorithm.server.init(zero), round=round)
        fitted = dict.fromkeys(WEIGHTS, zero)
        replies = answers(algorithm, asked(algorithm, state), Given(fitted))
        for update, _ in replies.values():
            assert all(bool(t.isfinite().all()) for t in update.payload[ADAPTER].values())
            assert not any(t.any() for n, t in update.payload[ADAPTER].items() if "lora_B" in n)


def test_fedrot_sends_what_fedavg_sends_in_number():
    order = asked(fedavg(), fedavg().server.init(START))
    ours = answers(fedrot_lora(0.5), order, trainer(3))["a"][0]
    assert {n: t.shape for n, t in ours.payload[ADAPTER].items()} == {
        n: t.shape for n, t in START.items()
    }


def test_training_that_diverged_is_told_as_with_any_method():
    spoilt = {
        client: {name: t * torch.nan for name, t in tree.items()} for client, tree in FITTED.items()
    }
    with pytest.raises(FeditError, match=r"training diverged: .* a lower local.lr"):
        sent(0.5, fitted=spoilt)
