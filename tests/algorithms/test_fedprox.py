import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import Proximal, fedprox
from fedit.core.fitting import Fit
from fedit.core.messages import ADAPTER, Home, Order
from fedit.core.tree import norm, same, sub
from tests import toy as toys
from tests.toy import RATE, STEPS, Toy, last, toy_policy, tree

NAMES = frozenset(tree(1))
ORDER = Order(0, 0, 0, {ADAPTER: tree(1)}, {"c0": 1.0}, NAMES, NAMES)


def pull_of(mu: float):
    """The pull that the local part hands to the trainer, received was tree(1)."""
    seen = []

    def fit(start, pull=None):
        seen.append(pull)
        return Fit(start)

    Proximal(mu)(tree(1), ORDER, Home(), fit)
    return seen[0]


@pytest.mark.parametrize("mu", [0.01, 0.3, 2.0])
def test_one_round_is_what_numpy_says(mu, tmp_path, monkeypatch):
    """Gradient w − target + μ(w − w_received), worked out in fp64 (arXiv 1812.06127, eq. 2)."""
    monkeypatch.setattr(toys, "NOISE", 0.0)
    toy = Toy(tmp_path, clients=3)
    got = last(toy.run(fedprox(mu), policy=toy_policy(1.0), until=1))
    sizes = np.array([c.examples for c in toy.population], dtype=np.float64)
    for name, value in tree(1).items():
        w = value.numpy().astype(np.float64)
        fitted = []
        for client in toy.population:
            target = toy.trainer.targets[client.id][name].numpy()
            w_k, v = w.copy(), np.zeros_like(w)
            for _ in range(STEPS):
                v = 0.5 * v + (w_k - target) + mu * (w_k - w)
                w_k = w_k - RATE * v
            fitted.append(w_k)
        wanted = np.tensordot(sizes / sizes.sum(), np.stack(fitted), axes=1)
        np.testing.assert_allclose(got[name].numpy(), wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("mu", [0.0, 0.3, 100.0])
def test_the_first_local_gradient_is_fedavgs_bit_for_bit(mu):
    assert all(bool((t == 0).all()) for t in pull_of(mu)(tree(1)).values())


def test_the_pull_is_the_gradient_of_the_proximal_term():
    now = {n: t.clone().requires_grad_() for n, t in tree(2).items()}
    term = sum(0.3 / 2 * (now[n] - tree(1)[n]).square().sum() for n in now)
    term.backward()
    pulled = pull_of(0.3)(tree(2))
    for name, value in now.items():
        torch.testing.assert_close(pulled[name], value.grad, rtol=1e-6, atol=1e-7)


def test_the_pull_answers_for_the_names_that_train_only():
    name = min(NAMES)
    assert pull_of(0.3)({name: tree(2)[name]}).keys() == {name}


def test_the_larger_mu_the_nearer_to_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(toys, "NOISE", 0.0)
    moved = []
    for mu in (0.0, 0.1, 1.0, 5.0):
        done = Toy(tmp_path / str(mu)).run(fedprox(mu), policy=toy_policy(1.0), until=1)
        moved.append(norm(sub(last(done), tree(1))))
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 0.7 * moved[0]


def test_mu_is_measured_from_what_was_received_not_from_the_first_round(tmp_path):
    toy = Toy(tmp_path)
    algorithm, seen = fedprox(0.5), []
    fit = toy.trainer.fit

    def spied(client, order, start, aim, memory):
        seen.append(all(bool((t == 0).all()) for t in aim.pull(order.public[ADAPTER]).values()))
        return fit(client, order, start, aim, memory)

    toy.trainer.fit = spied
    toy.run(algorithm, until=3)
    assert seen == [True] * 9


def test_it_is_fedavg_with_one_seat_replaced(tmp_path):
    prox, avg = fedprox(0.2), fedavg()
    seats = ("scope", "combine", "server", "guards")
    assert all(getattr(prox, seat) == getattr(avg, seat) for seat in seats)
    assert prox.name == "fedprox"
    assert prox.local != avg.local
    some = last(Toy(tmp_path / "a").run(prox))
    assert not same(some, last(Toy(tmp_path / "b").run(avg)))
