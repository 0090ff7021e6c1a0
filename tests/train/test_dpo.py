"""Preference tuning against DPO's equation 7 written out in fp64, without any of fedit's training code."""

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

from fedit.config import Local
from fedit.core.fitting import Aim
from fedit.core.messages import BASE, Order
from fedit.core.tree import same, scale, sub
from fedit.evaluate.pairs import Ranking, held_out_ranking
from fedit.train.adapters import AdapterError
from fedit.train.dpo import Preference
from fedit.train.encoded import Encoded, apart
from fedit.train.forward import Forward, make_forward
from fedit.train.model import fingerprint
from fedit.train.trainer import LocalTrainer
from tests.zoo import PEFT_KINDS, adapted, made, stirred

CPU = torch.device("cpu")
BETA = 0.3


def pairs(*lengths, seed=0):
    """Pairs of random tokens; each length is (prompt, chosen, rejected)."""
    rng, found = np.random.default_rng(seed), []
    for prompt, chosen, rejected in lengths:
        shared = rng.integers(3, 250, prompt, dtype=np.int32)
        ids = [shared, rng.integers(3, 250, chosen, dtype=np.int32)]
        ids += [shared, rng.integers(3, 250, rejected, dtype=np.int32)]
        learn = np.repeat([False, True, False, True], [len(part) for part in ids])
        found.append(Encoded(np.concatenate(ids), learn, middle=prompt + chosen))
    return found


PAIRS = pairs((5, 9, 4), (3, 2, 12), (8, 20, 7), (2, 1, 1), (6, 4, 4), (4, 3, 11))


def trainer(given=PAIRS, *, beta=BETA, fused=False, adapter="lora", **plan):
    one = adapted("llama", adapter)
    forward = make_forward(one.model, 0, CPU, fused=fused)
    local = Local(objective="dpo", beta=beta, **{"batch": 6, "lr": 0.5, "clip": None, **plan})
    return LocalTrainer(one, {"ann": given}, local, 1, forward, Preference(beta))


def order(of, **public):
    names = frozenset(of.adapted.parameters)
    return Order(0, 0, 0, public, {"ann": 1.0}, names, names)


def fit(of, start, **public):
    return of.fit("ann", order(of, **public), start, Aim(), {})


def start_of(of):
    return stirred(of.adapted.read(), seed=3)


def log_likelihood(model, row):
    """log π(answer | prompt) of one conversation, as a textbook has it."""
    ids = torch.from_numpy(row.ids).long()
    logs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
    return sum(logs[i - 1, ids[i]] for i in range(1, len(ids)) if row.learn[i])


def textbook(start, given, beta=BETA):
    """Equation 7's loss, margins and gradient in fp64."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model, reference = get_peft_model(made().model, config), made().model.double().eval()
    set_peft_model_state_dict(model, start)
    model = model.double().eval()
    margins = []
    for row in given:
        won = Encoded(row.ids[: row.middle], row.learn[: row.middle])
        lost = Encoded(row.ids[row.middle :], row.learn[row.middle :])
        with torch.no_grad():
            before = log_likelihood(reference, won) - log_likelihood(reference, lost)
        margins.append(beta * (log_likelihood(model, won) - log_likelihood(model, lost) - before))
    margins = torch.stack(margins)
    loss = -torch.sigmoid(margins).log().mean()
    loss.backward()
    named = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    return float(loss.detach()), margins.detach(), {name: p.grad for name, p in named.items()}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("micro", [None, 2])
def test_loss_and_gradient_are_equation_7(fused, micro):
    one = trainer(fused=fused, optimizer="sgd", steps=1, micro_batch=micro)
    start = start_of(one)
    got = fit(one, start)
    loss, margins, gradient = textbook(start, PAIRS)
    assert got.metrics["loss"] == pytest.approx(loss, rel=1e-4)
    assert got.metrics["margin"] == pytest.approx(float(margins.mean()), rel=1e-3)
    assert got.metrics["accuracy"] == pytest.approx(float((margins > 0).double().mean()))
    assert got.metrics["pairs"] == 6
    assert got.metrics["tokens"] == sum(len(row.ids) for row in PAIRS)
    moved = scale(sub(start, got.fitted), 1 / 0.5)
    assert moved.keys() == gradient.keys()
    largest = max(float(g.abs().max()) for g in gradient.values())
    for name, wanted in gradient.items():
        torch.testing.assert_close(moved[name].double(), wanted, rtol=1e-3, atol=1e-4 * largest)
    assert one.loss("ann", order(one), start) == pytest.approx(loss, rel=1e-4)


def test_an_untrained_adapter_small_beta_and_equal_answers_give_log_2():
    one = trainer()
    assert one.loss("ann", order(one), one.adapted.read()) == pytest.approx(math.log(2), abs=1e-5)
    weak = trainer(beta=1e-7)
    assert weak.loss("ann", order(weak), start_of(weak)) == pytest.approx(math.log(2), abs=1e-5)
    [half] = apart(pairs((4, 3, 1)))[:1]
    twice = Encoded(np.tile(half.ids, 2), np.tile(half.learn, 2), middle=len(half.ids))
    alike = trainer([twice], optimizer="sgd", steps=1)
    start = start_of(alike)
    got = fit(alike, start)
    assert got.metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    for name, tensor in sub(got.fitted, start).items():
        assert tensor.abs().max() < 1e-6, name


@pytest.mark.parametrize("kind", PEFT_KINDS)
def test_the_reference_is_the_base_as_loaded_whatever_was_trained_or_added(kind):
    one, plain = adapted("llama", kind), made().model.eval()
    one.write(start_of(trainer(adapter=kind)))
    before = fingerprint(one.model, skip=one.parameters.values())
    if kind == "lora":
        layer = next(n for n, m in one.model.named_modules() if hasattr(m, "base_layer"))
        shape = one.model.get_submodule(layer).base_layer.weight.shape
        one.shift({layer: torch.ones(shape)})
    [*ready] = Preference(BETA).ready(one, Forward(one.model, 0, CPU), PAIRS, 4)
    assert fingerprint(one.model, skip=one.parameters.values()) == before
    with torch.no_grad():
        for row in ready:
            won, lost = apart([row])
            wanted = float(log_likelihood(plain, won) - log_likelihood(plain, lost))
            assert row.lead == pytest.approx(wanted, abs=1e-3)


def test_the_reference_is_asked_once_and_does_not_follow_training():
    one, calls = trainer(epochs=1), []
    usual = one.adapted.model.disable_adapter
    one.adapted.model.disable_adapter = lambda: calls.append(1) or usual()
    layer = next(n for n, m in one.adapted.model.named_modules() if hasattr(m, "base_layer"))
    shape = one.adapted.model.get_submodule(layer).base_layer.weight.shape
    start, added = start_of(one), {BASE: {layer: torch.full(shape, 0.01)}}
    first = fit(one, start, **added)
    fit(one, first.fitted)
    again = fit(one, start, **added)
    assert calls == [1]
    assert same(first.fitted, again.fitted)
    assert first.metrics["loss"] == again.metrics["loss"]
    assert same(fit(trainer(epochs=1), start, **added).fitted, first.fitted), "a new process"


def test_an_adapter_without_a_switch_has_no_reference():
    one = adapted("gpt2", "bitfit")
    with pytest.raises(AdapterError, match="cannot be switched off"):
        Preference(BETA).ready(one, Forward(one.model, 0, CPU), PAIRS, 4)


def test_a_step_raises_the_margin():
    one = trainer(optimizer="sgd", steps=1, lr=0.05)
    start = one.adapted.read()
    fitted = fit(one, start).fitted
    after = fit(one, fitted).metrics
    assert after["margin"] > 1e-4
    assert after["loss"] < math.log(2) - 1e-4


def test_held_out_pairs_tie_with_their_reference_and_are_counted_by_group():
    one = trainer()
    objective, groups = one.objective, ["a", "b", "a", "b", "a", "b"]
    rows = one.ready(PAIRS, 4)
    found = held_out_ranking(objective, one.forward, rows, groups, 4)
    assert found["a"].means() == {
        "loss": pytest.approx(math.log(2), rel=1e-12),
        "accuracy": 0.5,
        "margin": 0.0,
        "pairs": 3,
    }
    start = start_of(one)
    one.adapted.write(start)
    found = held_out_ranking(objective, one.forward, rows, groups, 4)
    loss, margins, _ = textbook(start, PAIRS)
    whole = sum(found.values(), Ranking()).means()
    assert whole["loss"] == pytest.approx(loss, rel=1e-4)
    assert found["b"].margin == pytest.approx(float(margins[1::2].sum()), rel=1e-3, abs=1e-4)
    assert found["b"].right == float((margins[1::2] > 0).sum())
    assert math.isnan(Ranking().means()["accuracy"])
