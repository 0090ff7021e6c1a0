"""FedSA-LoRA (arXiv 2410.01463): A is shared, B never leaves its client."""

import torch

from fedit.algorithms.fedsa_lora import fedsa_lora
from fedit.core.messages import ADAPTER, KEPT
from fedit.core.tree import only, same
from fedit.core.wire import unpack
from fedit.engines.messages import pack_order, pack_update
from tests import toy as toys
from tests.factors import (
    A_NAMES,
    B_NAMES,
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

START = {name: torch.zeros_like(t) if name in B_NAMES else t for name, t in factors(1).items()}


def rounds(count: int):
    """Each round's order, replies with homes, and the state after."""
    algorithm, homes = fedsa_lora(), {}
    state, found = algorithm.server.init(START), []
    for _ in range(count):
        order = asked(algorithm, state)
        replies = answers(algorithm, order, trainer(), homes)
        homes = {client: home for client, (_, home) in replies.items()}
        state = step(algorithm, state, order, {c: update for c, (update, _) in replies.items()})
        found.append((order, replies, state))
    return found


def test_everything_trains_and_a_travels():
    assert fedsa_lora().scope(0, NAMES) == fedsa_lora().scope(3, NAMES) == (NAMES, A_NAMES)


def test_no_b_is_in_any_payload_nor_its_bytes_in_any_message():
    for order, replies, _ in rounds(3):
        wire = b"".join(pack_update(update) for update, _ in replies.values())
        wire += b"".join(pack_order(order, client) for client in order.cohort)
        for update, home in replies.values():
            payload, _ = unpack(pack_update(update))
            assert {role: tree.keys() for role, tree in payload.items()} == {ADAPTER: A_NAMES}
            for name, value in home.payload[KEPT].items():
                assert value.numpy().tobytes() not in wire, name
            sent = update.payload[ADAPTER]["up.lora_A.weight"]
            assert sent.numpy().tobytes() in wire, "the search itself must find what is sent"


def test_the_global_b_stays_0_and_each_client_has_its_own():
    *_, (_, replies, state) = rounds(2)
    assert same(only(state.adapter, B_NAMES), only(START, B_NAMES))
    kept = [home.payload[KEPT] for _, home in replies.values()]
    assert all(tree.keys() == B_NAMES for tree in kept)
    assert not same(kept[0], kept[1])


def test_two_rounds_are_what_numpy_says(monkeypatch):
    """A begins each round as the mean, B where its client left it."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    *_, (_, replies, state) = rounds(2)
    targets = trainer().targets
    for name in NAMES:
        own = {client: START[name].numpy() for client in WEIGHTS}
        for _ in range(2):
            own = {c: descend(own[c], towards(targets[c][name])) for c in WEIGHTS}
            if name in A_NAMES:
                own = dict.fromkeys(WEIGHTS, averaged(own))
        if name in A_NAMES:
            near(state.adapter[name], own["a"])
        else:
            for client, (_, home) in replies.items():
                near(home.payload[KEPT][name], own[client])


def test_a_clients_own_model_is_the_shared_a_with_its_own_b():
    order, replies, _ = rounds(1)[0]
    home = replies["b"][1]
    own = fedsa_lora().own(order.public[ADAPTER], order, home, None)
    assert same(only(own, A_NAMES), only(START, A_NAMES))
    assert same(only(own, B_NAMES), home.payload[KEPT])
