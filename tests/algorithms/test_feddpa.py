"""FedDPA against its formulas, worked out in numpy."""

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.feddpa import PERSONAL, Weighing, feddpa, mixed
from fedit.core.client import answer
from fedit.core.fitting import Fit
from fedit.core.messages import Home, Order
from fedit.core.tree import same
from tests import toy as toys
from tests.toy import RATE, STEPS, Toy, last, toy_policy, tree


def texts(rows: int, seed: int = 0, width: int = 6) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) + 0.7


def cosines(prompts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The mean over the chosen texts, one number a prompt."""
    return np.array(
        [
            np.mean([p @ c / (np.linalg.norm(p) * np.linalg.norm(c)) for c in chosen])
            for p in prompts
        ]
    )


@pytest.mark.parametrize(("samples", "most"), [(1, 1.0), (5, 0.5), (50, 0.8)])
def test_the_weight_is_the_mean_cosine_to_the_chosen_instructions(samples, most):
    how, own, prompts = Weighing(samples, most), texts(20), texts(9, seed=1)
    chosen = how.examples(own, 3)
    assert len(chosen) == min(samples, 20)
    assert all(any(torch.equal(one, text) for text in own) for one in chosen)
    wanted = most * cosines(prompts.double().numpy(), chosen.double().numpy()).clip(0, 1)
    np.testing.assert_allclose(how.weights(prompts, own, 3), wanted, rtol=1e-12, atol=1e-15)


def test_which_instructions_are_chosen_follows_from_the_seed():
    how, own = Weighing(5), texts(20)
    assert torch.equal(how.examples(own, 1), how.examples(own, 1))
    assert not torch.equal(how.examples(own, 1), how.examples(own, 2))
    assert len(how.examples(own, 1).unique(dim=0)) == 5, "none twice"


def test_a_prompt_like_none_of_them_gets_the_global_adapter_bit_for_bit():
    how, own, w, v = Weighing(), texts(8), tree(1), tree(2)
    opposite = -how.examples(own, 0).mean(0)
    assert same(how.mixture(opposite, own, 0, w, v), w)


def test_the_same_prompt_as_all_of_them_gets_the_largest_weight():
    how, w, v = Weighing(most=0.25), tree(1), tree(2)
    prompt = texts(1)[0]
    got = how.mixture(3 * prompt, prompt.repeat(4, 1), 0, w, v)
    for name, value in got.items():
        wanted = 0.75 * w[name].double().numpy() + 0.25 * v[name].double().numpy()
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-6, atol=1e-7)


def test_weights_sum_to_one():
    """A mixture of an adapter with itself is that adapter, whatever the weight; 0 and 1 leave bits."""
    w, v = tree(1), tree(2)
    assert same(mixed(0.0, w, v), w)
    assert same(mixed(1.0, w, v), v)
    for weight in (0.1, 0.5, 0.93):
        for name, value in mixed(weight, w, w).items():
            torch.testing.assert_close(value, w[name], rtol=1e-6, atol=1e-7)


def test_the_global_adapter_is_fedavgs_and_the_own_one_is_local_training(tmp_path, monkeypatch):
    monkeypatch.setattr(toys, "NOISE", 0.0)
    toy = Toy(tmp_path / "a", clients=3)
    engine = toy.engine(feddpa(Weighing()))
    done = toy.run(feddpa(Weighing()), engine=engine, policy=toy_policy(1.0), until=2)
    plain = Toy(tmp_path / "b", clients=3).run(fedavg(), policy=toy_policy(1.0), until=2)
    assert same(last(done), last(plain))
    for client in toy.population:
        kept = engine.homes.load(client.id, 2).payload
        assert kept.keys() == {PERSONAL}
        for name, value in tree(1).items():
            target = toy.trainer.targets[client.id][name].double().numpy()
            own = value.double().numpy()
            for _ in range(2):  # rounds, each with fresh momentum
                speed = np.zeros_like(own)
                for _ in range(STEPS):
                    speed = 0.5 * speed + own - target
                    own = own - RATE * speed
            np.testing.assert_allclose(kept[PERSONAL][name].numpy(), own, rtol=2e-6, atol=2e-6)


class Fitted:
    """A fitter that gives tree(3) and these texts."""

    def __init__(self, rows: torch.Tensor):
        self.rows, self.asked = rows, []

    def __call__(self, start, pull=None, **options):
        self.asked.append((start, options))
        return Fit(tree(3))

    def texts(self, at):
        return self.rows


@pytest.mark.parametrize("variant", ["t", "f"])
def test_a_clients_own_model_is_the_mixture_at_the_mean_weight_of_its_texts(variant):
    names = frozenset(tree(1))
    order = Order(2, 0, 11, {"adapter": tree(1)}, {"c0": 1.0}, names, names)
    how, fit = Weighing(3, 0.6), Fitted(texts(12))
    home = Home({PERSONAL: tree(3)} if variant == "t" else {})
    got = feddpa(how, variant).own(tree(1), order, home, fit)
    own = fit.rows.double().numpy()
    chosen = how.examples(fit.rows, 11).double().numpy()
    weight = 0.6 * cosines(own, chosen).clip(0, 1).mean()
    assert 0.01 < weight < 0.6
    for name, value in got.items():
        w, v = (tree(seed)[name].double().numpy() for seed in (1, 3))
        np.testing.assert_allclose(value, (1 - weight) * w + weight * v, rtol=1e-5, atol=1e-6)
    assert [options for _, options in fit.asked] == (
        [{"again": PERSONAL}] if variant == "f" else []
    )


def test_a_client_that_never_took_part_has_the_global_adapter():
    names = frozenset(tree(1))
    order = Order(2, 0, 11, {"adapter": tree(1)}, {"c0": 1.0}, names, names)
    got = feddpa(Weighing()).own(tree(1), order, Home(), Fitted(texts(12)))
    for name, value in got.items():
        torch.testing.assert_close(value, tree(1)[name], rtol=1e-6, atol=1e-7)


def test_f_is_fedavg_until_the_own_model_is_asked_for(tmp_path):
    toy, algorithm = Toy(tmp_path), feddpa(Weighing(), "f")
    names = frozenset(tree(1))
    order = Order(0, 0, 0, {"adapter": tree(1)}, {"c0": 1.0}, names, names)
    update, home = answer(order, "c0", Home(), toy.trainer, algorithm)
    plain, _ = answer(order, "c0", Home(), toy.trainer, fedavg())
    assert same(update.payload["adapter"], plain.payload["adapter"])
    assert not home.payload
