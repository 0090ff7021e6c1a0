"""pFedMe (arXiv 2006.08848, Algorithm 1): w moves towards personal models that are drawn to it."""

from dataclasses import replace

import pytest

from fedit.algorithms.pfedme import pfedme
from fedit.core.client import MEMORY
from fedit.core.messages import ADAPTER, Home
from fedit.core.tree import same
from fedit.engines.messages import pack_order, pack_update
from tests import toy as toys
from tests.factors import (
    NAMES,
    WEIGHTS,
    answers,
    asked,
    averaged,
    descend,
    factors,
    near,
    step,
    towards,
    trainer,
)

START = factors(1)


def one_round(algorithm, toy=None):
    state = algorithm.server.init(START)
    order = asked(algorithm, state)
    replies = answers(algorithm, order, toy or trainer())
    return order, replies, step(algorithm, state, order, {c: u for c, (u, _) in replies.items()})


@pytest.mark.parametrize("beta", [0.4, 1.0])
@pytest.mark.parametrize("loops", [1, 3])
def test_a_round_is_what_numpy_says(loops, beta, monkeypatch):
    """θ from w along ∇f(θ) + λ (θ − w), w ← w − η λ (w − θ), at last w ← (1 − β) w + β mean."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    strength, lr = 2.0, 0.15
    algorithm = pfedme(strength, lr, loops, beta)
    order, replies, after = one_round(algorithm)
    for name in NAMES:
        start, local, theta = START[name].numpy().astype(float), {}, {}
        for client in WEIGHTS:
            w, slope = start, towards(trainer().targets[client][name])
            for _ in range(loops):
                theta[client] = descend(w, lambda x, w=w, f=slope: f(x) + strength * (x - w))
                w = w - lr * strength * (w - theta[client])
            local[client] = w
        for client, (update, home) in replies.items():
            near(update.payload[ADAPTER][name], local[client])
            near(algorithm.own(START, order, home, None)[name], theta[client])
        near(after.adapter[name], (1 - beta) * start + beta * averaged(local))


def test_beta_0_freezes_the_server_bit_for_bit():
    algorithm = pfedme(15.0, 0.05, 1, beta=0.0)
    order, replies, after = one_round(algorithm)
    assert same(after.adapter, START)
    assert not same(algorithm.own(START, order, replies["a"][1], None), START)


def test_a_whole_step_sends_the_own_model_itself():
    """η λ = 1."""
    algorithm = pfedme(10.0, 0.1, 2)
    order, replies, _ = one_round(algorithm)
    for update, home in replies.values():
        own = algorithm.own(START, order, home, None)
        for name in NAMES:
            near(update.payload[ADAPTER][name], own[name].numpy(), 1e-6)


def test_every_loop_draws_batches_of_its_own():
    toy, seen = trainer(), []
    fit = toy.fit

    def spied(client, order, start, aim, memory):
        seen.append((client, aim.again))
        return fit(client, order, start, aim, memory)

    toy.fit = spied
    one_round(pfedme(2.0, 0.1, 3), toy)
    assert len(seen) == len(set(seen)) == 9


def test_the_own_model_stays_with_its_client():
    order, replies, _ = one_round(pfedme(2.0, 0.15, 2))
    wire = b"".join(pack_order(order, client) for client in order.cohort)
    wire += b"".join(pack_update(update) for update, _ in replies.values())
    for update, home in replies.values():
        assert update.payload.keys() == {ADAPTER}
        for tree in home.payload.values():
            assert not any(value.numpy().tobytes() in wire for value in tree.values())
        assert update.payload[ADAPTER]["up.lora_B.weight"].numpy().tobytes() in wire


def test_who_was_never_asked_has_the_global_model():
    algorithm = pfedme(2.0, 0.15)
    order = asked(algorithm, algorithm.server.init(START))
    assert same(algorithm.own(START, order, Home(), None), START)


def test_what_the_optimizer_keeps_is_that_of_the_first_loop(monkeypatch):
    """The second loop begins without a memory: what the next round takes up must not be its."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    toy = replace(trainer(), keep=True)
    _, once, _ = one_round(pfedme(2.0, 0.15, 1), toy)
    _, twice, _ = one_round(pfedme(2.0, 0.15, 2), toy)
    for client in WEIGHTS:
        kept = twice[client][1].payload[MEMORY + "speed"]
        assert same(kept, once[client][1].payload[MEMORY + "speed"])
        assert any(bool(value.any()) for value in kept.values())
