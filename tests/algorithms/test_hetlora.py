"""HetLoRA (arXiv 2401.06432, section 4.2): factors filled up with zeros, weighed by their products' norms."""

import numpy as np
import pytest

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.hetlora import hetlora
from fedit.algorithms.ranks import with_ranks
from fedit.core.lora import cut
from fedit.core.messages import received_by
from fedit.core.tree import same
from tests.factors import LAYERS, NAMES, WEIGHTS, asked, averaged, ba, factors, near, step

RANKS = {"a": 1, "b": 2, "c": 4}
START = factors(1, 4)
SENT = {client: factors(10 + rank, rank) for client, rank in RANKS.items()}


def after(sent, by_norm: bool = True):
    algorithm = with_ranks(hetlora(4, by_norm), RANKS, 4)
    state = algorithm.server.init(START)
    return algorithm, step(algorithm, state, asked(algorithm, state), sent)


def padded(client: str, name: str) -> np.ndarray:
    full = np.zeros(START[name].shape)
    value = SENT[client][name].numpy()
    full[: value.shape[0], : value.shape[1]] = value
    return full


def norm(tree) -> float:
    return float(np.sqrt(sum(np.square(ba(tree, layer)).sum() for layer in LAYERS)))


@pytest.mark.parametrize("by_norm", [False, True])
def test_a_round_is_what_numpy_says(by_norm):
    _, state = after(SENT, by_norm)
    shares = {c: p * (norm(SENT[c]) if by_norm else 1) for c, p in WEIGHTS.items()}
    for name in NAMES:
        wanted = sum(share * padded(c, name) for c, share in shares.items())
        near(state.adapter[name], wanted / sum(shares.values()), 1e-6)


def test_norms_change_the_mean():
    assert not same(after(SENT)[1].adapter, after(SENT, by_norm=False)[1].adapter)


def test_equal_ranks_without_norms_are_fedavg_bit_for_bit():
    algorithm, plain = hetlora(4, by_norm=False), fedavg()
    sent = {c: factors(30 + n, 4) for n, c in enumerate(WEIGHTS)}
    order = asked(plain, plain.server.init(START))
    ours = step(algorithm, algorithm.server.init(START), order, sent)
    assert same(ours.adapter, step(plain, plain.server.init(START), order, sent).adapter)
    name = "up.lora_A.weight"
    near(ours.adapter[name], averaged({c: t[name].numpy() for c, t in sent.items()}))


@pytest.mark.parametrize("client", RANKS)
def test_each_client_receives_the_first_directions(client):
    algorithm, state = after(SENT)
    received = received_by(client, asked(algorithm, state))
    assert same(received, cut(state.adapter, RANKS[client]))


def test_directions_that_one_client_alone_has_are_shortened_by_the_others():
    """Zeros are averaged in, as the paper does it."""
    _, state = after(SENT, by_norm=False)
    near(state.adapter["up.lora_A.weight"][3], 0.5 * SENT["c"]["up.lora_A.weight"][3].numpy())


def test_adapters_that_change_nothing_yet_are_averaged_all_the_same():
    sent = {c: {n: t * ("lora_A" in n) for n, t in tree.items()} for c, tree in SENT.items()}
    _, state = after(sent)
    for name, value in state.adapter.items():
        assert bool(value.isfinite().all())
        assert bool(value.any()) == ("lora_A" in name)
