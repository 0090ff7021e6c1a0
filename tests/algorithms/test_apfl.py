"""APFL (arXiv 2003.13461, Algorithm 1): a mixture of the global model and an own part."""

import pytest

from fedit.algorithms.apfl import OWN, apfl, mix
from fedit.algorithms.fedavg import fedavg
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


def rounds(algorithm, count: int, toy=None):
    """Each round's order, replies with homes, and the state after."""
    state, homes, found = algorithm.server.init(START), {}, []
    for _ in range(count):
        order = asked(algorithm, state)
        replies = answers(algorithm, order, toy or trainer(), homes)
        homes = {client: home for client, (_, home) in replies.items()}
        state = step(algorithm, state, order, {c: update for c, (update, _) in replies.items()})
        found.append((order, replies, state))
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_global_path_is_fedavgs_bit_for_bit(alpha):
    ours, plain = rounds(apfl(alpha), 3), rounds(fedavg(), 3)
    assert all(same(a[2].adapter, b[2].adapter) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_two_rounds_of_the_own_part_are_what_numpy_says(alpha, monkeypatch):
    """v moves so that m = α v + (1 − α) w_k is trained as any model is, w_k standing still."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    algorithm, targets = apfl(alpha), trainer().targets
    *_, (_, replies, state) = rounds(algorithm, 2)
    for name in NAMES:
        w = START[name].numpy().astype(float)
        v = dict.fromkeys(WEIGHTS, w)
        for _ in range(2):
            local = {c: descend(w, towards(targets[c][name])) for c in WEIGHTS}
            for client in WEIGHTS:
                m = alpha * v[client] + (1 - alpha) * local[client]
                v[client] = v[client] + (descend(m, towards(targets[client][name])) - m) / alpha
            w = averaged(local)
        near(state.adapter[name], w)
        order = asked(algorithm, state)
        for client, (_, home) in replies.items():
            near(home.payload[OWN][name], v[client], 5e-6)
            own = algorithm.own(state.adapter, order, home, None)
            near(own[name], alpha * v[client] + (1 - alpha) * w, 5e-6)


def test_alpha_0_is_the_global_model_alone_and_trains_nothing_beside_it():
    algorithm, toy = apfl(0.0), trainer()
    *_, (order, replies, state) = rounds(algorithm, 2, toy)
    for _, home in replies.values():
        assert same(algorithm.own(state.adapter, order, home, None), state.adapter)
    assert len(toy.fitted) == 2 * len(WEIGHTS)


def test_alpha_1_is_a_model_of_each_clients_own_that_never_hears_of_the_others():
    algorithm = apfl(1.0)

    def own(away: float):
        toy = trainer()
        toy.targets |= {c: {n: t + away for n, t in toy.targets[c].items()} for c in ("b", "c")}
        *_, (order, replies, state) = rounds(algorithm, 2, toy)
        return algorithm.own(state.adapter, order, replies["a"][1], None), state.adapter

    (near_by, together), (far, apart) = own(0.0), own(9.0)
    assert same(near_by, far)
    assert not same(together, apart)


def test_the_mixture_is_exactly_one_side_at_either_end():
    own, general = factors(2), factors(3)
    assert mix(1.0, own, general) is own
    assert mix(0.0, own, general) is general
    for name, value in mix(0.25, own, general).items():
        near(value, 0.25 * own[name].numpy() + 0.75 * general[name].numpy(), 1e-6)


def test_the_own_part_stays_with_its_client():
    for order, replies, _ in rounds(apfl(0.5), 2):
        wire = b"".join(pack_order(order, client) for client in order.cohort)
        wire += b"".join(pack_update(update) for update, _ in replies.values())
        for update, home in replies.values():
            assert update.payload.keys() == {ADAPTER}
            values = home.payload[OWN].values()
            assert not any(value.numpy().tobytes() in wire for value in values)
            assert update.payload[ADAPTER]["up.lora_B.weight"].numpy().tobytes() in wire


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_who_was_never_asked_has_the_global_model(alpha):
    order = asked(apfl(alpha), apfl(alpha).server.init(START))
    for name, value in apfl(alpha).own(START, order, Home(), None).items():
        near(value, START[name].numpy(), 1e-7)
