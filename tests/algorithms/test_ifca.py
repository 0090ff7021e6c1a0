import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.ifca import Choosing, best_model, chosen, ifca
from fedit.core.client import tuned_model
from fedit.core.fitting import Aim, Fit
from fedit.core.messages import ADAPTER, CLUSTER, Home, Order, Update, models, role_of
from fedit.core.tree import same, scale, sub
from tests.algorithms.by_hand import PAIR, UNBIASED, Hand, close, vector
from tests.toy import Toy, last, toy_policy, tree

NAMES = frozenset(tree(1))
POLES = {name: torch.full_like(t, 2.0) for name, t in tree(1).items()}


class Landscape:
    """A fitter whose loss is known for each model, which it returns as it is."""

    def __init__(self, losses):
        self.losses, self.asked, self.fitted = losses, [], None

    def loss(self, at):
        self.asked.append(at)
        return self.losses[len(self.asked) - 1]

    def __call__(self, start):
        self.fitted = start
        return Fit(start)


def start_of(clusters, spread=0.5, seed=0):
    return ifca(clusters, spread, seed).server.init(tree(1))


def order(public):
    return Order(0, 0, 0, public, {"a": 1.0}, NAMES, NAMES)


@pytest.mark.parametrize("policy", [PAIR, UNBIASED], ids=["renormalised", "unbiased"])
def test_eight_rounds_are_what_numpy_says(policy, tmp_path, monkeypatch):
    """arXiv 2006.04088, Algorithm 1 with averaged models, from the starts that the run was given."""
    hand = Hand(tmp_path, monkeypatch)
    algorithm = ifca(3, 0.8, seed=4)
    clusters = [vector(model) for model in models(algorithm.server.init(tree(1)).public)]
    assert len(clusters) == 3
    used = set()
    for one in hand.run(algorithm, until=8, policy=policy):
        cohort = one.order.cohort
        best = [int(np.argmin([hand.loss(c, w) for w in clusters])) for c in cohort]
        assert [one.metrics[client][CLUSTER] for client in cohort] == best
        sizes = hand.unbiased(cohort) if policy is UNBIASED else hand.sizes(cohort)
        for k in set(best):
            mine = [place for place, chosen in enumerate(best) if chosen == k]
            w, share = clusters[k], sizes[mine] / sizes[mine].sum()
            mean = share @ np.stack([hand.fitted(cohort[place], w) for place in mine])
            clusters[k] = w + sizes.sum() * (mean - w)
        for model, wanted in zip(models(one.state.public), clusters, strict=True):
            close(model, wanted)
        used |= set(best)
    assert len(used) > 1


def test_one_cluster_is_fedavg_bit_for_bit_and_asks_for_no_loss(tmp_path):
    ours, plain = Toy(tmp_path / "a"), Toy(tmp_path / "b")
    ours.trainer.loss = None
    assert same(last(ours.run(ifca(1))), last(plain.run(fedavg())))


@pytest.mark.parametrize("seed", range(3))
def test_clients_with_two_targets_find_their_clusters(seed, tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch, clients=6)
    even, odd = hand.names[::2], hand.names[1::2]
    hand.aim_at(POLES, *even)
    hand.aim_at(scale(POLES, -1.0), *odd)
    done = hand.run(ifca(2, 1.0, seed), until=30, policy=toy_policy(4))
    told = {
        client: metrics[CLUSTER] for one in done[-4:] for client, metrics in one.metrics.items()
    }
    assert len({told[client] for client in even if client in told}) == 1
    assert len({told[client] for client in odd if client in told}) == 1
    assert len(set(told.values())) == 2
    final = models(done[-1].state.public)
    for client in told:
        close(final[int(told[client])], hand.target(client), 1e-2)
    plain = vector(last(hand.toy.run(fedavg(), until=30, policy=toy_policy(4), place="plain")))
    assert np.abs(np.abs(plain) - 2).max() > 1, "one model for both fits neither"


def test_a_clients_own_model_is_the_one_it_would_train():
    public = start_of(3).public
    fit = Landscape([3.0, 1.0, 2.0])
    assert same(best_model(tree(9), order(public), Home(), fit), public["cluster.1"])
    assert fit.fitted is None


def test_tuning_starts_from_the_model_that_fits_the_client_best(tmp_path):
    algorithm, trainer = ifca(3, 2.0), Toy(tmp_path).trainer
    public = algorithm.server.init(tree(1)).public
    asked = order(public)
    for k, model in enumerate(models(public)):
        trainer.targets = {"a": model}
        found = tuned_model(asked, "a", Home(), trainer, algorithm, 0)
        fitted = trainer.fit("a", asked, model, Aim(again="tuned"), {}).fitted
        assert same(found, fitted), k


def test_it_trains_the_best_and_says_which():
    public = start_of(3).public
    fit = Landscape([3.0, 2.0, 1.0])
    work = Choosing()(tree(9), order(public), Home(), fit)
    assert same(fit.fitted, public["cluster.2"])
    assert work.fit.metrics[CLUSTER] == 2.0
    assert all(same(a, b) for a, b in zip(fit.asked, models(public), strict=True))


def test_of_equals_it_takes_the_first():
    fit = Landscape([2.0, 1.0, 1.0])
    assert Choosing()(tree(9), order(start_of(3).public), Home(), fit).fit.metrics[CLUSTER] == 1.0


def test_clusters_that_nobody_chose_stay_and_sums_are_apart():
    algorithm = ifca(3, 0.5)
    state = algorithm.server.init(tree(1))
    asked = replace(order(state.public), weights={"a": 3.0, "b": 1.0, "c": 5.0})
    total = algorithm.combine.start(asked)
    for client, seed, cluster in (("a", 2, 1.0), ("b", 3, 1.0), ("c", 4, 0.0)):
        update = Update(client, 0, 0, {ADAPTER: tree(seed)}, {CLUSTER: cluster})
        total = algorithm.combine.add(total, update, asked)
    after = algorithm.server.step(state, total, asked)
    assert same(after.adapter, tree(4))
    close(after.public["cluster.1"], (3 * vector(tree(2)) + vector(tree(3))) / 4, 1e-6)
    assert same(after.public["cluster.2"], state.public["cluster.2"])
    assert after.public.keys() == state.public.keys()


def test_a_round_that_changes_nothing_changes_nothing(tmp_path, monkeypatch):
    hand = Hand(tmp_path, monkeypatch)
    hand.aim_at(tree(1))
    done = hand.run(ifca(2, 0.5))
    assert same(last(done), tree(1))
    assert same(done[-1].state.public["cluster.1"], start_of(2).public["cluster.1"])


def test_starts_are_drawn_from_the_seed_and_stand_as_far_apart_as_said():
    state = start_of(4, 0.5)
    assert [role_of(k) for k in range(4)] == list(state.public)
    assert same(state.adapter, tree(1))
    assert all(
        same(a, b) for a, b in zip(models(state.public), models(start_of(4).public), strict=True)
    )
    assert not same(state.public["cluster.1"], start_of(4, seed=1).public["cluster.1"])
    assert not same(state.public["cluster.1"], state.public["cluster.2"])
    near, far = (sub(start_of(2, s).public["cluster.1"], tree(1)) for s in (0.25, 0.5))
    close(scale(near, 2.0), vector(far), 1e-5)


def test_the_spread_is_in_standard_deviations_and_zeros_part_too():
    """LoRA's B is all zeros at the start."""
    adapter = {
        "a": 3 * torch.randn(400, 50, generator=torch.Generator().manual_seed(0)),
        "b": torch.zeros(400, 50),
    }
    away = sub(ifca(2, 0.2).server.init(adapter).public["cluster.1"], adapter)
    assert float(away["a"].std()) == pytest.approx(0.2 * 3, rel=0.05)
    assert float(away["b"].std()) == pytest.approx(0.2 * 0.01, rel=0.05)


@pytest.mark.parametrize(
    "losses", [[math.nan, 2.0, 1.0], [math.nan, math.nan, 1.0], [2.0, math.nan, 1.0]]
)
def test_a_model_whose_loss_is_no_number_is_not_chosen_wherever_it_stands(losses):
    known = models(start_of(3).public)
    assert chosen(known, Landscape(losses)) == 2
