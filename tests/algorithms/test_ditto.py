"""Ditto (arXiv 2012.04221, Algorithm 1): FedAvg, and beside it a model of each client's own."""

import pytest

from fedit.algorithms.ditto import ditto
from fedit.algorithms.fedavg import fedavg
from fedit.core.messages import ADAPTER, Home
from fedit.core.tree import same
from fedit.engines.messages import pack_order, pack_update, update_size
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


def rounds(algorithm, count: int):
    """Each round's order, replies with homes, and the state after."""
    state, homes, found = algorithm.server.init(START), {}, []
    for _ in range(count):
        order = asked(algorithm, state)
        replies = answers(algorithm, order, trainer(), homes)
        homes = {client: home for client, (_, home) in replies.items()}
        state = step(algorithm, state, order, {c: update for c, (update, _) in replies.items()})
        found.append((order, replies, state))
    return found


def own_model(algorithm, order, home):
    return algorithm.own(order.public[ADAPTER], order, home, None)


@pytest.mark.parametrize("strength", [0.0, 0.3, 50.0])
def test_the_global_path_is_fedavgs_bit_for_bit_whatever_happens_beside_it(strength):
    ours, plain = rounds(ditto(strength), 3), rounds(fedavg(), 3)
    for (_, replies, state), (_, usual, other) in zip(ours, plain, strict=True):
        assert same(state.adapter, other.adapter)
        for client, (update, _) in replies.items():
            assert same(update.payload[ADAPTER], usual[client][0].payload[ADAPTER])


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_two_rounds_of_the_own_model_are_what_numpy_says(strength, monkeypatch):
    """v ← v − η (∇f(v) + λ (v − w)) with w the global model received; λ = 0 is local training alone."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    algorithm, targets = ditto(strength), trainer().targets
    order, replies, _ = rounds(algorithm, 2)[-1]
    for name in NAMES:
        w = START[name].numpy().astype(float)
        v = dict.fromkeys(WEIGHTS, w)
        for _ in range(2):
            for client in WEIGHTS:
                slope = towards(targets[client][name])
                v[client] = descend(v[client], lambda x, w=w, f=slope: f(x) + strength * (x - w))
            w = averaged({c: descend(w, towards(targets[c][name])) for c in WEIGHTS})
        for client, (_, home) in replies.items():
            near(own_model(algorithm, order, home)[name], v[client])


def test_without_strength_the_own_model_never_hears_of_the_others():
    """Other clients' targets are moved far away: the same bits."""
    algorithm = ditto(0.0)

    def own(away: float):
        toy, home, state = trainer(), Home(), algorithm.server.init(START)
        toy.targets |= {c: {n: t + away for n, t in toy.targets[c].items()} for c in ("b", "c")}
        for _ in range(2):
            order = asked(algorithm, state)
            replies = answers(algorithm, order, toy, {"a": home})
            home = replies["a"][1]
            state = step(algorithm, state, order, {c: u for c, (u, _) in replies.items()})
        return own_model(algorithm, order, home), state.adapter

    (near_by, together), (far, apart) = own(0.0), own(9.0)
    assert same(near_by, far)
    assert not same(together, apart)


def test_the_own_model_trains_on_batches_of_its_own():
    order, replies, _ = rounds(ditto(0.0), 1)[0]
    for update, home in replies.values():
        assert not same(own_model(ditto(0.0), order, home), update.payload[ADAPTER])


def test_nothing_of_the_own_model_leaves():
    plain = rounds(fedavg(), 3)
    for number, (order, replies, _) in enumerate(rounds(ditto(0.3), 3)):
        wire = b"".join(pack_order(order, client) for client in order.cohort)
        wire += b"".join(pack_update(update) for update, _ in replies.values())
        for client, (update, home) in replies.items():
            assert update.payload.keys() == {ADAPTER}
            assert update_size(update) == update_size(plain[number][1][client][0])
            assert home.payload
            for tree in home.payload.values():
                assert not any(value.numpy().tobytes() in wire for value in tree.values())
            sent = update.payload[ADAPTER]["up.lora_A.weight"]
            assert sent.numpy().tobytes() in wire, "the search itself must find what is sent"


def test_who_was_never_asked_has_the_global_model():
    order = asked(ditto(0.3), ditto(0.3).server.init(START))
    assert same(own_model(ditto(0.3), order, Home()), START)


def test_the_stronger_the_pull_the_nearer_to_the_global_model(monkeypatch):
    monkeypatch.setattr(toys, "NOISE", 0.0)
    far = []
    for strength in (0.0, 0.5, 2.0, 5.0):
        order, replies, _ = rounds(ditto(strength), 1)[0]
        own = own_model(ditto(strength), order, replies["a"][1])
        far.append(sum(float((own[n] - START[n]).square().sum()) for n in NAMES))
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.5 * far[0]
