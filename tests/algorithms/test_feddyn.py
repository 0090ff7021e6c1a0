from dataclasses import replace

import numpy as np
import pytest

from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.feddyn import DUAL, Regularised, feddyn
from fedit.algorithms.ffa_lora import only_b
from fedit.core.fitting import Fit
from fedit.core.messages import ADAPTER, Home, Order
from fedit.core.rounds import Policy
from fedit.core.sums import Sum
from fedit.core.tree import double, map_trees, same, scale, sub
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, Unbiased, by_examples, equally
from tests.algorithms.by_hand import START, B, Hand, close, mean_at_home, vector
from tests.toy import Toy, last, toy_policy, tree

UNEVEN = {"c0": 1, "c1": 3, "c2": 6, "c3": 2}
NAMES = frozenset(tree(1))
ALPHA = 0.4


@pytest.mark.parametrize("only", [slice(None), B], ids=["everything", "only B"])
@pytest.mark.parametrize("alpha", [ALPHA, 2.0])
def test_six_rounds_are_what_numpy_says(alpha, only, tmp_path, monkeypatch):
    """arXiv 2111.04263, Algorithm 1, with unlike steps on the way to each client's minimum."""
    hand = Hand(tmp_path, monkeypatch, each=UNEVEN)
    algorithm = feddyn(alpha, 4)
    if only == B:
        algorithm = replace(algorithm, scope=only_b)
    w, h = START, np.zeros_like(START)
    own = {name: np.zeros_like(START) for name in hand.names}
    for one in hand.run(algorithm):
        cohort, fitted = one.order.cohort, []
        for client in cohort:
            start, dual = w[only], own[client][only]
            pull = {"pull": lambda now, s=start, d=dual: alpha * (now - s) - d, "only": only}
            fitted.append(hand.fitted(client, w, **pull))
            own[client] = own[client] - alpha * (fitted[-1] - w)
        h = h - alpha / 4 * sum(w_k - w for w_k in fitted)
        w = np.mean(fitted, axis=0) - h / alpha
        close(one.state.adapter, w, 1e-5)
        close(one.state.private[DUAL], h, 1e-5)
    np.testing.assert_allclose(h, np.mean(list(own.values()), axis=0), atol=1e-12)
    if only == B:
        assert same({"a": one.state.adapter["layer.lora_A"]}, {"a": tree(1)["layer.lora_A"]})
    np.testing.assert_allclose(mean_at_home(hand.toy, DUAL, 6), h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weigh", [Renormalised(by_examples), Unbiased(by_examples)])
@pytest.mark.parametrize(("cohort", "dropout"), [(6, 0.0), (2, 0.0), (4, 0.5)])
def test_h_is_the_mean_of_all_clients_own(weigh, cohort, dropout, tmp_path):
    toy, algorithm = Toy(tmp_path), feddyn(ALPHA, 6)
    engine = toy.engine(algorithm, dropout=dropout)
    policy = Policy(Uniform(cohort), weigh, minimum=0.5, attempts=20)
    done = toy.run(algorithm, engine=engine, policy=policy, until=3)
    found = vector(done[-1].state.private[DUAL])
    np.testing.assert_allclose(found, mean_at_home(toy, DUAL, 3, "homes"), atol=1e-6)
    assert np.abs(found).max() > 0.01
    assert any(one.failures for one in done) == bool(dropout)


def test_killed_in_the_midst_of_a_round_h_is_still_the_mean(tmp_path):
    algorithm = feddyn(ALPHA, 6)
    undisturbed = Toy(tmp_path / "whole").run(algorithm, until=5)
    toy = Toy(tmp_path / "killed")
    before = toy.run(algorithm, until=3)[-1].state
    fit, calls = toy.trainer.fit, []

    def dies(client, *rest):
        calls.append(client)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(client, *rest)

    toy.trainer.fit = dies
    with pytest.raises(KeyboardInterrupt):
        toy.run(algorithm, state=before, until=4)
    toy.trainer.fit = fit
    resumed = toy.run(algorithm, state=before, until=5)
    assert same(last(resumed), last(undisturbed))
    found = vector(resumed[-1].state.private[DUAL])
    np.testing.assert_allclose(found, mean_at_home(toy, DUAL, 5), atol=1e-6)


def test_the_plans_weights_are_of_no_account(tmp_path):
    results = []
    for weigh in (Renormalised(by_examples), Renormalised(equally), Unbiased(by_examples)):
        toy = Toy(tmp_path / f"{len(results)}")
        results.append(last(toy.run(feddyn(ALPHA, 6), policy=Policy(Uniform(3), weigh))))
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_it_rests_where_the_mean_loss_is_least(tmp_path, monkeypatch):
    """On these quadratics the optimum is the mean of targets, whatever the steps; FedAvg stops short."""
    away = {}
    policy = Policy(Uniform(1.0), Renormalised(equally))
    for algorithm in (fedavg(), feddyn(ALPHA, 4)):
        hand = Hand(tmp_path / algorithm.name, monkeypatch, each=UNEVEN)
        best = np.mean([hand.target(client) for client in hand.names], axis=0)
        found = vector(last(hand.run(algorithm, policy=policy, until=120)))
        away[algorithm.name] = np.linalg.norm(found - best)
    assert away["feddyn"] < 0.01
    assert away["fedavg"] > 0.1


def test_one_client_overshoots_by_its_own_way_in_the_first_round(tmp_path, monkeypatch):
    """h = −α(w₁ − w), so that w ← w₁ + (w₁ − w)."""
    hand = Hand(tmp_path, monkeypatch, clients=1)
    one = hand.run(feddyn(ALPHA, 1), until=2, policy=toy_policy(1))[0]
    fitted = hand.fitted("c0", START, pull=lambda now: ALPHA * (now - START))
    close(one.state.adapter, 2 * fitted - START)


def test_equal_clients_are_one_client(tmp_path, monkeypatch):
    results = []
    for count in (1, 4):
        hand = Hand(tmp_path / str(count), monkeypatch, clients=count)
        hand.aim_at(tree(7))
        results.append(vector(last(hand.run(feddyn(ALPHA, count), policy=toy_policy(1.0)))))
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5)


def order():
    return Order(0, 0, 0, {ADAPTER: tree(1)}, {"a": 1.0}, NAMES, NAMES)


def pulled(home, at):
    """The pull that a client of that home hands to its trainer, at some place."""
    seen = []

    def fit(start, pull):
        seen.append(pull(at))
        return Fit(start)

    work = Regularised(ALPHA)(tree(1), order(), home, fit)
    return seen[0], work


def test_the_pull_is_the_gradient_of_the_regulariser():
    """−⟨h, w⟩ + α/2 ‖w − w_received‖²."""
    now = {name: t.clone().requires_grad_() for name, t in tree(2).items()}
    for name, t in now.items():
        term = -(tree(3)[name] * t).sum() + ALPHA / 2 * (t - tree(1)[name]).square().sum()
        term.backward()
    found, _ = pulled(Home({DUAL: tree(3)}), tree(2))
    close(found, vector({name: t.grad for name, t in now.items()}), 1e-6)


def test_the_very_first_gradient_is_fedavgs_and_a_way_not_gone_leaves_h():
    found, work = pulled(Home(), tree(1))
    assert same(found, scale(tree(1), 0.0))
    assert same(work.home[DUAL], scale(tree(1), 0.0))
    _, work = pulled(Home({DUAL: tree(3)}), tree(1))
    assert same(work.home[DUAL], tree(3))


def test_a_round_that_changes_nothing_still_steps_against_h():
    algorithm, total = feddyn(ALPHA, 6), Sum()
    total.add({ADAPTER: tree(1)}, 1.0)
    start = algorithm.server.init(tree(1))
    assert same(algorithm.server.step(start, total, order()).adapter, tree(1))
    bent = replace(start, private={DUAL: double(tree(3))})
    after = algorithm.server.step(bent, total, order())
    wanted = map_trees(lambda w, h: (w.double() - h / ALPHA).float(), tree(1), double(tree(3)))
    assert same(after.adapter, wanted)
    assert same(after.private[DUAL], double(tree(3)))
    assert same(sub(bent.adapter, tree(1)), scale(tree(1), 0.0)), "the old state was written to"
