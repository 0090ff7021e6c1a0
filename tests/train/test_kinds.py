"""Every algorithm with every kind of adapter: it runs, or the plan refuses it by name."""

from functools import cache, partial
from typing import get_args

import pytest
import torch

from fedit.build.algorithms import make_algorithm
from fedit.config import Plan
from fedit.config.algorithm import LORA_ONLY, Algorithm
from fedit.core.client import _Fitter, answer
from fedit.core.errors import InputError
from fedit.core.gate import not_finite
from fedit.core.messages import Client, received_by
from fedit.core.rounds import Policy, make_order, rounds
from fedit.core.tree import same
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess
from fedit.recipe import make_plan
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, by_examples
from fedit.train.adapters import attach
from fedit.train.forward import make_forward
from fedit.train.lending import copy_of
from fedit.train.sft import Imitation
from fedit.train.trainer import LocalTrainer
from tests.zoo import ADAPTERS, made, rows

KINDS = ("dora", "prefix", "prompt", "ia3", "bitfit", "full", "lora_xs")
NAMES = {
    name
    for section in get_args(get_args(Algorithm)[0])
    for name in get_args(section.model_fields["name"].annotation)
} - {"external"}  # what another package makes
OPTIONS = {
    "scaffold": {"local": {"optimizer": "sgd", "clip": None, "lr": 0.1}},
    "fedper": {"algorithm": {"personal": [".0."]}},
    "fedrep": {"algorithm": {"personal": [".0."]}},
}
PARTED = ("dora", "ia3", "bitfit", "full", "lora_xs")  # kinds with more than one parameter
ROTATED = []
for turn, name in enumerate(sorted(NAMES - set(LORA_ONLY) - {"fedavg"})):
    kinds = PARTED if name in ("fedper", "fedrep") else KINDS
    ROTATED.append((name, kinds[turn % len(kinds)]))
CLIENTS = {"ann": rows((3, 4), (2, 5), (4, 2)), "bob": rows((1, 6), (5, 3), seed=1)}


def plan_of(name: str, kind: str) -> Plan:
    options = OPTIONS.get(name, {})
    return make_plan(
        {
            "model": {"base": "unused"},
            "data": {"train": "microworld"},
            "adapter": ADAPTERS[kind].model_dump(),
            "algorithm": {"name": name, **options.get("algorithm", {})},
            "local": {"batch": 2, "lr": 1e-2, **options.get("local", {})},
            "federation": {"rounds": 1},
        }
    )


@cache
def base():
    return made("gpt2")  # has biases


@pytest.mark.parametrize(("name", "kind"), [*(("fedavg", kind) for kind in KINDS), *ROTATED])
def test_a_round_trains_what_travels_and_leaves_every_client_a_model(name, kind, tmp_path):
    plan = plan_of(name, kind)
    model = copy_of(base(), own_weights=kind in ("full", "bitfit")).model
    one = attach(model, plan.adapter, plan.seed)
    forward = make_forward(
        one.model, 0, torch.device("cpu"), fused=False, virtual=kind in ("prefix", "prompt")
    )
    trainer = LocalTrainer(one, CLIENTS, plan.local, 1, forward, Imitation())
    population = [Client(client, len(given), 10) for client, given in CLIENTS.items()]
    algorithm = make_algorithm(plan, population)
    reply = partial(answer, trainer=trainer, algorithm=algorithm)
    engine = InProcess(reply, population, Homes(tmp_path), 0.0)
    policy = Policy(Uniform(1.0), Renormalised(by_examples))
    start = one.read()
    state = algorithm.server.init(start)
    [done] = rounds(state, algorithm, engine, policy, seed=0, until=1)
    assert not done.failures
    assert not any(not_finite(tree) for tree in done.state.public.values())
    before = state.public  # IFCA has several models, of which it may leave the first
    assert any(not same(tree, before[role]) for role, tree in done.state.public.items())
    order = make_order(done.state, 0, algorithm, policy, population, 0)
    for client in CLIENTS:
        home = engine.homes.load(client, 1)
        received = received_by(client, order)
        own = algorithm.own(received, order, home, _Fitter(client, order, trainer, {}))
        assert own.keys() == start.keys()
        assert not not_finite(own)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LORA_ONLY)
def test_methods_on_loras_factors_refuse_every_other_kind_by_name(name, kind):
    what = "adapter.dora" if kind == "dora" else f"adapter.kind {kind}"
    with pytest.raises(InputError) as caught:
        plan_of(name, kind)
    wanted = (
        f"algorithm {name} works on the factors of plain LoRA, not with {what}: use adapter.kind"
    )
    assert wanted in str(caught.value)


@pytest.mark.parametrize("name", ["fedper", "fedrep"])
@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_one_parameter_cannot_be_parted_into_shared_and_own(name, kind):
    one = attach(copy_of(base()).model, ADAPTERS[kind], 0)
    names = frozenset(one.parameters)
    plan = plan_of(name, kind)
    part = plan.algorithm.model_copy(update={"personal": ["prompt_encoder"]})
    algorithm = make_algorithm(plan.model_copy(update={"algorithm": part}), ())
    with pytest.raises(InputError, match=r"algorithm\.personal: it names every parameter"):
        algorithm.scope(0, names)


def test_every_algorithm_and_every_kind_has_its_turn():
    assert {name for name, _ in ROTATED} == NAMES - set(LORA_ONLY) - {"fedavg"}
    assert {kind for _, kind in ROTATED} == set(KINDS)
    assert {plan.kind for plan in ADAPTERS.values()} <= {"lora", *KINDS}
