"""Clients trained by one pass against the same clients one after another."""

from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pytest
import torch

from fedit.algorithms.ditto import ditto
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import fedprox
from fedit.algorithms.fedrep import fedrep
from fedit.algorithms.fedsam import fedsam
from fedit.algorithms.flora import flora
from fedit.algorithms.perfedavg import perfedavg
from fedit.algorithms.qfedavg import qfedavg
from fedit.algorithms.rolora import rolora
from fedit.algorithms.scaffold import scaffold
from fedit.config import Local
from fedit.core.client import answer
from fedit.core.fitting import Work
from fedit.core.messages import Client, Failure
from fedit.core.rounds import Policy, rounds
from fedit.core.tree import norm, same, sub
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess, through_bytes
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, by_examples
from fedit.train import stacked
from fedit.train.forward import make_forward
from fedit.train.sft import Imitation
from fedit.train.stacked import Together, obstacle
from fedit.train.thin import MaskedLora, SlicedLora
from fedit.train.trainer import LocalTrainer
from tests.zoo import adapted, rows, stirred

CPU = torch.device("cpu")
ROWS = {
    "ann": rows((5, 9), (3, 2), (8, 30), (2, 1), (6, 4), (4, 17), (9, 3), (1, 6), (7, 12), seed=1),
    "bob": rows((3, 4), seed=2),
    "cid": rows((4, 4), (5, 9), (2, 8), (6, 1), (9, 9), seed=3),
    "dee": rows((2, 2), (7, 3), (3, 11), seed=4),
    "eve": rows((8, 8), (1, 5), (4, 3), seed=5),
}
PLAN = Local(epochs=2, batch=3, lr=5e-3, weight_decay=0.1)
SGD = Local(epochs=2, batch=3, lr=0.05, optimizer="sgd", clip=None)


@cache
def model(kind="llama", adapter="rslora", **options):
    one = adapted(kind, adapter, **options)
    return one, make_forward(one.model, 0, CPU, fused=True), stirred(one.read(), seed=3)


def supervised(plan=PLAN, given=ROWS, **options):
    one, forward, _ = model(**options)
    return LocalTrainer(one, given, plan, 2, forward, Imitation())


@dataclass
class Counted:
    """The passes of a trainer's forward, and how many rows each took."""

    inner: object
    seen: list

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def losses(self, given):
        self.seen.append(len(given))
        return self.inner.losses(given)


def clients(folder, trainer, algorithm, together, wrap=lambda a: a):
    """The engine of a run with so many clients at once, and the rows of each of its passes."""
    passes = []
    trainer = replace(trainer, forward=Counted(trainer.forward, passes))
    stacked = Together(trainer)
    reply = wrap(partial(answer, trainer=stacked if together else trainer, algorithm=algorithm))
    population = [Client(name, len(own), 9 * len(own)) for name, own in trainer.examples.items()]
    one = InProcess(reply, population, Homes(folder / f"homes {together}"))
    if together:
        one = replace(one, together=together, side_by_side=stacked.lockstep.run)
    return one, passes


def trained(folder, trainer, algorithm, together, until=2, **options):
    engine, passes = clients(folder, trainer, algorithm, together, **options)
    policy = Policy(Uniform(1.0), Renormalised(by_examples), 1, 1)
    start = algorithm.server.init(model()[2])
    done = list(rounds(start, algorithm, engine, policy, seed=7, until=until))
    homes = {name: engine.homes.load(name, until).payload for name in trainer.examples}
    return start, done, homes, passes


def close(found, wanted, start, steps=1):
    """Whether the way from the start is the same to within 1e-5 a step."""
    assert found.keys() == wanted.keys()
    way = norm(sub(wanted, start)) if start else norm(wanted)
    return norm(sub(found, wanted)) <= 1e-5 * steps * way


CASES = {
    "fedavg": (fedavg, PLAN),
    "no clip, cosine": (
        fedavg,
        PLAN.model_copy(update={"clip": None, "schedule": "cosine", "warmup": 0.5}),
    ),
    "steps, micro-batches": (
        fedavg,
        # AdamW's first steps are signs: of gradients near 0 it makes much of a rounding
        Local(steps=3, batch=4, micro_batch=2, lr=0.05, optimizer="sgd"),
    ),
    "kept optimizer": (fedavg, PLAN.model_copy(update={"keep_optimizer": True})),
    "kept momentum": (
        fedavg,
        SGD.model_copy(update={"momentum": 0.9, "keep_optimizer": True, "clip": 1.0}),
    ),
    "fedprox": (lambda: fedprox(0.5), PLAN),
    "scaffold": (lambda: scaffold(5), SGD),
    "ditto": (lambda: ditto(0.3), PLAN.model_copy(update={"keep_optimizer": True})),
    "fedrep": (lambda: fedrep(["lora_B"]), PLAN),
    "rolora": (rolora, PLAN.model_copy(update={"keep_optimizer": True})),
    "flora": (lambda: flora(2.0), SGD),
    "qfedavg": (lambda: qfedavg(1.0, 1 / 0.05), SGD),
}


@pytest.mark.parametrize("together", [2, 5])
@pytest.mark.parametrize("case", CASES)
def test_each_client_ends_where_it_would_alone(case, together, tmp_path):
    make, plan = CASES[case]
    trainer = supervised(plan)
    start, wanted, kept, alone = trained(tmp_path, trainer, make(), 0)
    _, found, homes, passes = trained(tmp_path, trainer, make(), together)
    assert len(passes) < len(alone)
    assert sum(passes) == sum(alone)
    for a, b in zip(found, wanted, strict=True):
        assert not b.failures
        for role, tree in b.state.public.items():
            assert close(a.state.public[role], tree, start.public.get(role), steps=12), role
        assert a.metrics.keys() == b.metrics.keys() == ROWS.keys()
        for name, told in b.metrics.items():
            # an update's bytes hold the digits of what was measured
            own = {**a.metrics[name], "seconds": told["seconds"], "bytes_up": told["bytes_up"]}
            assert own == pytest.approx(told, rel=1e-5)
            assert a.metrics[name]["steps"] == told["steps"]
    for name, payload in kept.items():
        assert homes[name].keys() == payload.keys()
        for role, tree in payload.items():
            assert close(homes[name][role], tree, None, steps=12), (name, role)


def test_where_gradients_are_taken_ahead_clients_train_one_after_another(tmp_path):
    for number, method in enumerate((fedsam(0.05), perfedavg(0.01))):
        start, wanted, *_ = trained(tmp_path / str(number), supervised(), method, 0)
        _, found, *_ = trained(tmp_path / str(number), supervised(), method, 3)
        assert same(found[-1].state.adapter, wanted[-1].state.adapter)
        assert not same(found[-1].state.adapter, start.adapter)


def test_the_same_number_at_once_gives_the_same_bytes_also_through_bytes(tmp_path):
    def packed(answer):
        return through_bytes(answer, fedprox(0.1))

    results = [
        trained(tmp_path / str(number), supervised(), fedprox(0.1), 3, wrap=wrap)
        for number, wrap in enumerate((lambda a: a, lambda a: a, packed))
    ]
    first, *others = (done[-1].state.adapter for _, done, *_ in results)
    assert all(same(first, other) for other in others)


@dataclass(frozen=True)
class Odd:
    """Its pull fails on one client and leads another to infinity."""

    roles = ()

    def __call__(self, start, order, home, fit):
        def pull(now):
            if fit.client == "eve":
                raise RuntimeError("no pull")
            return {n: torch.full_like(t, torch.inf) for n, t in now.items()}

        return Work(fit(start, pull if fit.client in ("cid", "eve") else None))


def test_a_client_that_fails_spares_the_others(tmp_path):
    """One has no row, one nothing to learn, one diverges, the pull of one fails."""
    silent = [replace(row, learn=np.zeros_like(row.learn)) for row in ROWS["dee"]]
    given = {**ROWS, "bob": [], "dee": silent, "fay": ROWS["bob"]}
    method, plan = replace(fedavg(), local=Odd()), PLAN.model_copy(update={"clip": None})
    ends = [trained(tmp_path, supervised(plan, given), method, n, until=1) for n in (0, 6)]
    (_, [alone], _, _), (_, [found], _, _) = ends
    assert [f.client for f in found.failures] == ["bob", "cid", "dee", "eve"]
    assert list(map(told, found.failures)) == list(map(told, alone.failures))
    assert same(found.state.adapter, alone.state.adapter)


def told(failure: Failure) -> tuple[str, str, str]:
    return failure.client, failure.reason, failure.detail


def test_a_run_that_stacks_leaves_the_model_as_it_was(tmp_path):
    trainer = supervised()
    order_of = [m.forward.__func__ for m in trainer.adapted.model.modules() if hasattr(m, "lora_A")]
    loss = trainer.forward.losses(ROWS["ann"])[0]
    before = trainer.adapted.read()
    trained(tmp_path, trainer, fedavg(), 5, until=1)
    trainer.adapted.write(before)
    assert torch.equal(trainer.forward.losses(ROWS["ann"])[0], loss)
    after = [m.forward.__func__ for m in trainer.adapted.model.modules() if hasattr(m, "lora_A")]
    assert after == order_of


def test_by_masks_as_on_a_gpu_clients_end_there_as_well(tmp_path, monkeypatch):
    start, wanted, *_ = trained(tmp_path, supervised(SGD), fedavg(), 0)
    monkeypatch.setattr(stacked, "masks", lambda device: True)
    _, found, *_ = trained(tmp_path, supervised(SGD), fedavg(), 5)
    assert close(found[-1].state.adapter, wanted[-1].state.adapter, start.adapter, steps=12)


@pytest.mark.parametrize("masked", [False, True])
def test_a_stacked_layer_is_a_layer_for_each_client(masked):
    rng = np.random.default_rng(0)
    tokens, wide, out, rank, s = (2, 0, 3), 5, 4, 2, 0.7
    x, w = rng.normal(size=(sum(tokens), wide)), rng.normal(size=(out, wide))
    bias, dy = rng.normal(size=out), rng.normal(size=(sum(tokens), out))
    a, b = rng.normal(size=(3, rank, wide)), rng.normal(size=(3, out, rank))
    y, dx, da, db = x @ w.T + bias, dy @ w, np.zeros_like(a), np.zeros_like(b)
    mask = np.zeros((sum(tokens), 3))
    for k, own in enumerate((slice(0, 2), slice(2, 2), slice(2, 5))):
        mask[own, k] = 1
        y[own] += s * x[own] @ a[k].T @ b[k].T
        dx[own] += s * dy[own] @ b[k] @ a[k]
        da[k], db[k] = s * (dy[own] @ b[k]).T @ x[own], s * dy[own].T @ (x[own] @ a[k].T)
    given = [
        torch.tensor(t, dtype=torch.float32) for t in (x[None], a.reshape(3, -1), b.reshape(3, -1))
    ]
    x_in, a_in, b_in = (t.requires_grad_() for t in given)
    w_in, bias_in, m = (torch.tensor(t, dtype=torch.float32) for t in (w, bias, mask))
    layer, places = (MaskedLora, m) if masked else (SlicedLora, [2, 2, 5])
    found = layer.apply(x_in, w_in, bias_in, a_in, b_in, places, s)
    found.backward(torch.tensor(dy[None], dtype=torch.float32))
    pairs = ((found, y), (x_in.grad, dx), (a_in.grad, da), (b_in.grad, db))
    for ours, wanted in pairs:
        assert ours.detach().numpy().ravel() == pytest.approx(wanted.ravel(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "adapter", "options", "reason"),
    [
        ("llama", "lora", {}, None),
        ("llama", "dora", {}, "plain LoRA"),
        ("llama", "ia3", {}, "plain LoRA"),
        ("gpt2", "lora", {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0}, "plain LoRA"),
        ("bloom", "lora", {}, "laid end to end"),
        ("llama", "lora", {"attention_dropout": 0.1}, "attention_dropout"),
    ],
)
def test_a_model_that_cannot_be_stacked_says_why(kind, adapter, options, reason):
    found = obstacle(supervised(kind=kind, adapter=adapter, **options))
    assert (found is None) if reason is None else (reason in found)


def test_rows_beyond_a_models_window_are_not_stacked(tmp_path):
    trainer = supervised()
    short = replace(trainer, forward=replace(trainer.forward, window=10))
    _, wanted, _, alone = trained(tmp_path, short, fedavg(), 0, until=1)
    _, found, _, passes = trained(tmp_path, short, fedavg(), 5, until=1)
    assert passes == alone
    assert same(found[-1].state.adapter, wanted[-1].state.adapter)


def test_optimizers_that_remember_unlike_steps_train_as_they_would_alone(tmp_path):
    """Names that trained in other rounds than others have taken other numbers of steps."""
    plan = PLAN.model_copy(update={"keep_optimizer": True})
    names = sorted(model()[2])

    def scope(round, known):
        return (frozenset(names[: None if round else 2]), known)

    method = replace(fedavg(), scope=scope)
    _, wanted, *_ = trained(tmp_path, supervised(plan), method, 0)
    _, found, _, passes = trained(tmp_path, supervised(plan), method, 5)
    assert passes.count(3) > 5
    assert close(found[-1].state.adapter, wanted[-1].state.adapter, model()[2], steps=12)
