"""Rounds of LoRA factors on two layers that are not square, and the arithmetic of them in numpy's float64."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedit.core.client import answer
from fedit.core.messages import ADAPTER, Home, Order, State, Update
from fedit.core.seats import Algorithm
from fedit.core.tree import Tree
from tests.toy import RATE, STEPS, ToyTrainer

LAYERS = {"down": (5, 9), "up": (9, 5)}  # out, in: A and B have as many numbers in all
WEIGHTS = {"a": 0.2, "b": 0.3, "c": 0.5}
S = 2.0


def factors(seed: int, rank: int = 2) -> Tree:
    """Random factors, none of them 0."""
    rng, tree = torch.Generator().manual_seed(seed), Tree()
    for layer, (out, into) in LAYERS.items():
        tree[f"{layer}.lora_A.weight"] = torch.randn(rank, into, generator=rng)
        tree[f"{layer}.lora_B.weight"] = torch.randn(out, rank, generator=rng)
    return tree


NAMES = frozenset(factors(0))
A_NAMES = frozenset(name for name in NAMES if "lora_A" in name)
B_NAMES = NAMES - A_NAMES


def trainer(rank: int = 2) -> ToyTrainer:
    """Pulls each client to factors of its own."""
    return ToyTrainer({client: factors(50 + n, rank) for n, client in enumerate(WEIGHTS)})


def ba(tree: Mapping[str, torch.Tensor], layer: str) -> np.ndarray:
    """B A of a layer."""
    a, b = (tree[f"{layer}.lora_{x}.weight"].numpy().astype(np.float64) for x in "AB")
    return b @ a


def mean_ba(updates: Mapping[str, Tree], layer: str) -> np.ndarray:
    """Σ p_k B_k A_k."""
    return sum(p * ba(updates[client], layer) for client, p in WEIGHTS.items())


def asked(algorithm: Algorithm, state: State, pace: float = 1.0) -> Order:
    """The order of the state's round."""
    trains, travels = algorithm.scope(state.round, frozenset(state.adapter))
    usual = Order(state.round, 0, 7, state.public, WEIGHTS, trains, travels, pace)
    return algorithm.prepare(state, usual)


def answers(
    algorithm: Algorithm, order: Order, toy: ToyTrainer, homes: Mapping[str, Home] | None = None
) -> dict[str, tuple[Update, Home]]:
    """What each client sends and keeps."""
    homes = homes or {}
    return {c: answer(order, c, homes.get(c, Home()), toy, algorithm) for c in order.cohort}


def total_of(algorithm: Algorithm, order: Order, updates: Mapping[str, Update | Tree]) -> Any:
    """The combined updates; a tree stands for an update that holds just it."""
    total = algorithm.combine.start(order)
    for client in order.cohort:
        sent = updates[client]
        if not isinstance(sent, Update):
            sent = Update(client, order.round, 0, {ADAPTER: sent})
        total = algorithm.combine.add(total, sent, order)
    return total


def step(
    algorithm: Algorithm, state: State, order: Order, updates: Mapping[str, Update | Tree]
) -> State:
    """The state after the round."""
    total = total_of(algorithm, order, updates)
    return replace(algorithm.server.step(state, total, order), round=state.round + 1)


def descend(
    start: np.ndarray, slope: Callable[[np.ndarray], np.ndarray], steps: int = STEPS
) -> np.ndarray:
    """What the toy trainer does without its noise, in float64: SGD with momentum ½ along `slope`."""
    now, speed = start.astype(np.float64), np.zeros(start.shape)
    for _ in range(steps):
        speed = 0.5 * speed + slope(now)
        now = now - RATE * speed
    return now


def towards(target: torch.Tensor) -> Callable[[np.ndarray], np.ndarray]:
    """The gradient of ½‖w − target‖²."""
    aim = target.numpy().astype(np.float64)
    return lambda now: now - aim


def averaged(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Σ p_k w_k."""
    return sum(p * values[client] for client, p in WEIGHTS.items())


def near(found: torch.Tensor | np.ndarray, wanted: np.ndarray, rtol: float = 2e-6) -> None:
    """Assert that they agree within what fp32 can tell, as a share of the largest number."""
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=rtol * scale)
