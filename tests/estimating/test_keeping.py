"""What a method holds, as estimated without values, is what it holds with them."""

import pytest

from fedit.build import build
from fedit.core.client import answer
from fedit.core.fitting import Aim
from fedit.core.messages import Home, Payload
from fedit.core.rounds import make_order
from fedit.estimating import memory as module
from fedit.estimating.keeping import keeping
from fedit.estimating.parameters import blank_tree
from fedit.estimating.working import Living
from fedit.recipe import changed
from fedit.train.stacked import Call, _tried
from tests.tiny import tiny

PLAIN = {"optimizer": "sgd", "clip": None}
METHODS = {
    "scaffold": {"local": PLAIN},
    "fedadam": {},
    "ditto": {},
    "fedrep": {"algorithm": {"name": "fedrep", "personal": ["lora_B"]}},
    "rolora": {"local": {"keep_optimizer": True}},
    "fedsa_lora": {"local": {"keep_optimizer": True, "steps": 1}},
    "ifca": {},
    "fedex_lora": {},
    "flora": {"adapter": {"rank": 2, "ranks": {"tiers": [1, 2]}}},
    "flexlora": {},
}


def held(payload: Payload) -> int:
    return sum(t.nbytes for part in payload.values() for t in part.values())


def asked(job, state, round=0):
    clients = job.engine.clients()
    return make_order(state, round, job.algorithm, job.policy, clients, job.plan.seed)


@pytest.mark.parametrize("name", METHODS)
def test_server_sums_step_and_homes_are_those_of_a_real_round(name, tmp_path):
    job = build(tiny(tmp_path, **{"algorithm": name, **METHODS[name]}), tmp_path)
    tree = blank_tree(job.adapted.parameters)
    found = keeping(job, tree, module._moments(job))
    state, home = job.algorithm.server.init(job.adapted.read()), Home()
    assert found.state == held(state.public) + held(state.private)
    full = name != "flora"  # of unlike ranks the largest counts
    for _ in range(2 if name == "rolora" else 1):
        order = asked(job, state)
        client = next(c for c in order.cohort if full or order.personal)
        update, home = answer(order, client, home, job.trainer, job.algorithm)
        total = job.algorithm.combine.add(job.algorithm.combine.start(order), update, order)
        with Living() as living:
            for numbers in total.numbers.values():
                numbers.view(-1)  # is known from here on: it is not the step that makes it
            before = living.peak = living.now
            after = job.algorithm.server.step(state, total, order)
        state = type(state)(state.round + 1, after.public, after.private)
    assert found.home == held(home.payload)
    clusters = 2 if name == "ifca" else 1
    sums = {role: t.nbytes for role, t in total.numbers.items()}
    more = (clusters - 1) * sum(size for role, size in sums.items() if role != "sketch")
    assert found.sums == sum(sums.values()) + more
    assert found.step == pytest.approx(living.peak - before, rel=0.01)
    assert (found.shifted > 0) == (name in ("fedex_lora", "flora"))


def counted(plan, folder):
    job = build(plan, folder, blank=True)
    return job, module.memory(job, blank_tree(job.adapted.parameters), 0)


def test_products_and_the_shifted_base_are_in_the_peak(tmp_path):
    _, plain = counted(tiny(tmp_path), tmp_path)
    job, exact = counted(tiny(tmp_path, algorithm="fedex_lora"), tmp_path)
    layers = [m.base_layer.weight for m in job.adapted.model.modules() if hasattr(m, "base_layer")]
    numbers = sum(weight.numel() for weight in layers)
    assert exact.shifted == 4 * numbers
    assert exact.server - plain.server == (8 + 4) * numbers
    assert exact.step > 3 * 8 * numbers
    assert exact.peak - plain.peak >= exact.shifted + exact.server - plain.server


def test_what_a_client_keeps_is_in_the_peak_twice_while_it_trains(tmp_path):
    _, plain = counted(tiny(tmp_path), tmp_path)
    _, own = counted(tiny(tmp_path, algorithm="ditto"), tmp_path)
    assert own.home == 2 * plain.gradients
    assert own.peak == plain.peak + own.home
    assert own.homes == 4 * 3 * plain.gradients


def test_clients_together_are_all_counted(tmp_path):
    plan = tiny(tmp_path, engine={"kind": "inprocess", "together": 2}, threads=1)
    _, one = counted(tiny(tmp_path), tmp_path)
    _, two = counted(plan, tmp_path)
    assert (two.adapter, two.gradients, two.optimizer) == (
        3 * one.adapter,
        2 * one.gradients,
        2 * one.optimizer,
    )
    job = build(plan, tmp_path)
    order, start = asked(job, job.algorithm.server.init(job.adapted.read())), job.adapted.read()
    calls = [Call(client, order, start, Aim(), {}) for client in order.cohort]
    with Living() as living:
        assert _tried(job.trainer, calls)
    said = two.adapter - one.adapter + two.gradients + two.optimizer + two.activations + two.logits
    assert living.peak < said < 1.6 * living.peak, "the largest batches, which these need not be"
    few = changed(plan, {"federation.cohort": 1}, "plan")
    assert counted(few, tmp_path)[1].activations == one.activations


def test_asking_the_base_about_pairs_is_counted(tmp_path):
    rows = tmp_path / "pairs.jsonl"
    one = '{"prompt": "Say it twice.", "chosen": "It is, it is.", "rejected": "%s"}\n'
    rows.write_text("".join(one % ("No. " * n) for n in range(1, 17)))  # four for each client
    plan = tiny(
        tmp_path / "run",
        data={"train": str(rows), "holdout": None, "limit": None},
        local={"objective": "dpo"},
    )
    job = build(plan, tmp_path)
    found = module.memory(job, blank_tree(job.adapted.parameters), 0)
    peaks = []
    for client in job.trainer.examples.values():
        with Living() as living:
            job.trainer.ready(client, 4)
        peaks.append(living.peak)
    assert max(peaks) < found.evaluation < 1.3 * max(peaks)
