"""One client's training against textbook loops written without any of fedit's training code."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import nn

from fedit import make_plan
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import fedprox
from fedit.build import make_adapter
from fedit.config import Local, Lora
from fedit.core.client import answer
from fedit.core.errors import FeditError
from fedit.core.messages import ADAPTER, Client, Home, Order, State
from fedit.core.rounds import Policy, rounds
from fedit.core.seats import Aim
from fedit.core.seeds import generator
from fedit.core.tree import map_trees, same, scale, sub
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, by_examples
from fedit.train.adapters import AdapterError, attach
from fedit.train.batches import collate, token_losses
from fedit.train.forward import Forward
from fedit.train.model import fingerprint
from fedit.train.sft import Supervised, lr_at
from tests.zoo import ADAPTERS, ARCHITECTURES, PEFT_KINDS, adapted, made, padded, rows, stirred

CPU = torch.device("cpu")
ROWS = rows((5, 9), (3, 2), (8, 30), (2, 1), (6, 4), (4, 17), (9, 3), (1, 6), (7, 12), (3, 3))
LORA = Lora(rank=4, alpha=8)


def trainer(plan, adapter="lora", given=ROWS, rounds=1, one=None, **options):
    one = one or adapted("llama", adapter, **options)
    return Supervised(one, {"ann": given, "bob": given}, plan, rounds, Forward(one.model, 0, CPU))


def order(of, round=0, seed=0, attempt=0, trains=None):
    names = frozenset(of.adapted.parameters)
    trains = names if trains is None else frozenset(trains)
    return Order(round, attempt, seed, {}, {"ann": 1.0, "bob": 1.0}, trains, names)


def fit(of, start, pull=None, memory=None, client="ann", **asked):
    return of.fit(client, order(of, **asked), start, Aim(pull), memory or {})


def start_of(of):
    """An adapter whose every factor is at work."""
    return stirred(of.adapted.read(), seed=3)


def batches(size, steps, round=0, client="ann", given=ROWS):
    """The documented order: one permutation an epoch from the stream of this fit."""
    rng = generator(0, "fit", round, 0, client, "order")
    found = []
    while len(found) < steps:
        mixed = [given[i] for i in rng.permutation(len(given))]
        found += [mixed[i : i + size] for i in range(0, len(mixed), size)]
    return found[:steps]


def plain_model(start):
    """The same LoRA, made and filled by plain PEFT."""
    model = get_peft_model(
        made().model,
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    set_peft_model_state_dict(model, start)
    model.train()
    return model, {
        name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad
    }


def plain_loss(model, chosen):
    """Mean cross entropy over the learned tokens, as transformers' own loss computes it."""
    ids, attention, labels = padded(chosen)
    logits = model(input_ids=ids, attention_mask=attention).logits[:, :-1]
    return nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100
    )


def plain_loop(start, schedule, optimizer, clip):
    """`schedule`: (learning rate, rows) of each step."""
    model, named = plain_model(start)
    stepper = optimizer(list(named.values()))
    for rate, chosen in schedule:
        stepper.param_groups[0]["lr"] = rate
        stepper.zero_grad()
        plain_loss(model, chosen).backward()
        if clip:
            nn.utils.clip_grad_norm_(list(named.values()), clip)
        stepper.step()
    return {name: p.detach().clone() for name, p in named.items()}


def adamw(decay=0.0):
    return lambda parameters: torch.optim.AdamW(parameters, lr=1.0, weight_decay=decay, fused=True)


def sgd(momentum=0.0, decay=0.0):
    return lambda parameters: torch.optim.SGD(
        parameters, lr=1.0, momentum=momentum, weight_decay=decay
    )


# ---- against the textbook, bit for bit


@pytest.mark.parametrize(
    ("settings", "optimizer", "steps"),
    [
        ({"epochs": 1}, adamw(), 3),  # 4 + 4 + 2 rows: the last batch is a part
        ({"epochs": 2}, adamw(), 6),
        ({"steps": 4}, adamw(), 4),  # goes on into a second epoch
        ({"steps": 2}, adamw(), 2),  # stops within the first
        ({"epochs": 1, "clip": None}, adamw(), 3),
        ({"epochs": 1, "clip": 0.01}, adamw(), 3),
        ({"epochs": 1, "weight_decay": 0.1}, adamw(0.1), 3),
        ({"epochs": 1, "optimizer": "sgd"}, sgd(), 3),
        ({"epochs": 2, "optimizer": "sgd", "momentum": 0.9}, sgd(0.9), 6),
        ({"epochs": 1, "optimizer": "sgd", "weight_decay": 0.1}, sgd(0, 0.1), 3),
    ],
    ids=lambda value: "reference" if callable(value) else str(value),
)
def test_a_client_is_a_plain_loop(settings, optimizer, steps):
    plan = Local(batch=4, lr=0.01, **settings)
    one = trainer(plan)
    start = start_of(one)
    got = fit(one, start)
    wanted = plain_loop(start, [(0.01, b) for b in batches(4, steps)], optimizer, plan.clip)
    assert same(got.fitted, wanted)
    assert not same(got.fitted, start)
    assert got.metrics["steps"] == steps


@pytest.mark.parametrize("round", [0, 1, 3])
def test_the_cosine_runs_over_all_rounds_and_down_to_zero(round):
    plan = Local(batch=4, epochs=1, lr=0.02, schedule="cosine")
    one = trainer(plan, rounds=4)
    start = start_of(one)
    rates = [0.02 * 0.5 * (1 + math.cos(math.pi * ((round + step / 3) / 4))) for step in range(3)]
    schedule = list(zip(rates, batches(4, 3, round), strict=True))
    assert same(fit(one, start, round=round).fitted, plain_loop(start, schedule, adamw(), 1.0))


def test_measurements_are_those_of_the_data():
    one = trainer(Local(batch=4, epochs=2, lr=1e-9))
    start = start_of(one)
    metrics = fit(one, start).metrics
    learned = sum(int(row.learn.sum()) for row in ROWS)
    assert metrics["supervised"] == 2 * learned
    assert metrics["samples"] == 2 * len(ROWS)
    assert metrics["tokens"] == 2 * sum(len(row.ids) for row in ROWS)
    model, _ = plain_model(start)
    with torch.no_grad():
        wanted = float(plain_loss(model, ROWS))
    assert metrics["loss"] == pytest.approx(wanted, rel=1e-5)


# ---- micro-batches


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    """Each micro-batch's own mean would weight a token by the shortness of its neighbours' answers."""
    settings = {"batch": 8, "steps": 1, "lr": 1.0, "optimizer": "sgd", "clip": None}
    uneven = rows((4, 40), (4, 1), (4, 30), (4, 1), (4, 2), (4, 25), (4, 1), (4, 1))
    one = trainer(Local(**settings), given=uneven)
    start = start_of(one)

    def gradient(size):
        plan = Local(**settings, micro_batch=size)
        return sub(start, fit(trainer(plan, given=uneven, one=one.adapted), start).fitted)

    whole = gradient(None)
    [mixed] = batches(8, 1, given=uneven)
    model, named = plain_model(start)
    for i in range(0, 8, 2):
        (plain_loss(model, mixed[i : i + 2]) / 4).backward()  # the classic mistake
    wrong = {name: p.grad for name, p in named.items()}
    for size in (1, 2, 4):
        parts = gradient(size)
        for name, wanted in whole.items():
            slack = 1e-4 * float(wanted.abs().max())
            torch.testing.assert_close(parts[name], wanted, rtol=1e-4, atol=slack)
            assert float((wrong[name] - wanted).abs().max()) > 100 * slack


# ---- what is learned


def test_the_end_is_learned_even_when_it_is_the_pad():
    """Masking by the pad's id would leave the end out, and the model would never learn to stop."""
    end = 0
    short, long = rows((3, 4), (3, 9))
    short.ids[-1] = end
    one = trainer(Local(steps=40, batch=2, lr=0.01), "full", given=[short, long])

    @torch.no_grad()
    def loss_of_the_end():
        losses, places = token_losses(one.adapted.model.eval(), collate([short, long], end), CPU)
        assert (places == 0).sum() == 4
        return float(losses[places == 0][-1])

    one.adapted.write(start_of(one))
    before = loss_of_the_end()
    fit(one, start_of(one))
    assert loss_of_the_end() < before / 2


def test_prompts_are_not_learned():
    """Other labels under a prompt's tokens change nothing: only its answers have any."""
    plan = Local(steps=1, batch=4, lr=1.0, optimizer="sgd", clip=None)
    given = rows((6, 5), (6, 5), (6, 5), (6, 5))
    one = trainer(plan, given=given)
    start = start_of(one)
    first = fit(one, start).fitted
    everything = [replace(row, learn=row.learn | True) for row in given]
    assert not same(fit(trainer(plan, given=everything, one=one.adapted), start).fitted, first)
    assert fit(one, start).metrics["supervised"] == 20


def test_a_client_with_nothing_to_learn_says_so():
    for given, said in (
        ([], "has no example"),
        ([replace(ROWS[0], learn=ROWS[0].learn & False)], "none of"),
    ):
        one = trainer(Local(steps=1), given=given)
        with pytest.raises(FeditError, match=said):
            fit(one, one.adapted.read())


# ---- the optimizer's memory


@pytest.mark.parametrize(
    ("settings", "optimizer"),
    [({}, adamw()), ({"optimizer": "sgd", "momentum": 0.9}, sgd(0.9))],
    ids=["adamw", "sgd"],
)
def test_a_kept_optimizer_makes_two_rounds_one_loop(settings, optimizer):
    plan = Local(batch=4, epochs=1, lr=0.01, keep_optimizer=True, **settings)
    one = trainer(plan, rounds=2)
    start = start_of(one)
    first = fit(one, start, round=0)
    second = fit(one, first.fitted, memory=first.memory, round=1)
    both = [(0.01, b) for b in batches(4, 3, 0) + batches(4, 3, 1)]
    assert same(second.fitted, plain_loop(start, both, optimizer, 1.0))
    fresh = fit(one, first.fitted, round=1)
    assert not same(fresh.fitted, second.fitted)
    assert same(fresh.fitted, plain_loop(first.fitted, both[3:], optimizer, 1.0))


def test_memory_is_a_copy_and_only_kept_when_asked():
    plan = Local(batch=4, epochs=1, lr=0.01, keep_optimizer=True)
    one = trainer(plan)
    start = start_of(one)
    first = fit(one, start)
    assert set(first.memory) == {"step", "exp_avg", "exp_avg_sq"}
    kept = {role: scale(tree, 1.0) for role, tree in first.memory.items()}
    fit(one, start, memory=first.memory)
    assert all(same(first.memory[role], tree) for role, tree in kept.items())
    assert fit(trainer(Local(epochs=1), one=one.adapted), start).memory == {}


def test_memory_goes_home_and_comes_back():
    plan = Local(batch=4, epochs=1, lr=0.01, keep_optimizer=True)
    one = trainer(plan, rounds=2)
    start = start_of(one)
    ask = replace(order(one), public={ADAPTER: start})
    update, home = answer(ask, "ann", Home(), one, fedavg())
    received = update.payload[ADAPTER]
    ask = replace(ask, round=1, public={ADAPTER: received})
    update, _ = answer(ask, "ann", home, one, fedavg())
    both = [(0.01, b) for b in batches(4, 3, 0) + batches(4, 3, 1)]
    assert same(update.payload[ADAPTER], plain_loop(start, both, adamw(), 1.0))


# ---- the pull


def test_the_pull_is_added_to_the_gradient():
    plan = Local(steps=1, batch=10, lr=0.5, optimizer="sgd", clip=None)
    one = trainer(plan)
    start = start_of(one)
    anchor = stirred(start, seed=9)
    free = fit(one, start).fitted
    pulled = fit(one, start, pull=lambda now: scale(sub(now, anchor), 0.1)).fitted
    wanted = map_trees(lambda w, a, p: w - 0.5 * 0.1 * (p - a), free, anchor, start)
    for name in wanted:
        torch.testing.assert_close(pulled[name], wanted[name])


def test_the_pull_comes_before_the_clip():
    plan = Local(steps=1, batch=10, lr=1.0, optimizer="sgd", clip=0.5)
    one = trainer(plan)
    start = start_of(one)
    far = fit(one, start, pull=lambda now: scale(now, 1000.0)).fitted
    moved = math.sqrt(sum(float(t.square().sum()) for t in sub(far, start).values()))
    assert moved == pytest.approx(0.5, rel=1e-3)


def test_fedprox_stays_nearer_and_with_no_mu_is_fedavg():
    plan = Local(steps=8, batch=4, lr=0.1, optimizer="sgd", clip=None)
    one = trainer(plan)
    start = start_of(one)
    ask = replace(order(one), public={ADAPTER: start})

    def way(algorithm):
        update, _ = answer(ask, "ann", Home(), one, algorithm)
        difference = sub(update.payload[ADAPTER], start)
        return update, sum(float(t.square().sum()) for t in difference.values())

    free, far = way(fedavg())
    still, as_far = way(fedprox(0.0))
    assert same(free.payload[ADAPTER], still.payload[ADAPTER])
    assert as_far == far
    assert way(fedprox(5.0))[1] < way(fedprox(1.0))[1] < far


# ---- what must not change


@pytest.mark.parametrize("adapter", [*PEFT_KINDS, "bitfit"])
def test_the_base_is_untouched_and_every_tensor_of_the_adapter_moves(adapter):
    one = trainer(Local(epochs=1, batch=4, lr=0.01, weight_decay=0.1), one=adapted("gpt2", adapter))
    mine = list(one.adapted.parameters.values())
    before, start = fingerprint(one.adapted.model, mine), start_of(one)
    got = fit(one, start).fitted
    assert fingerprint(one.adapted.model, mine) == before
    assert all(not torch.equal(got[name], start[name]) for name in start)
    assert same(start, stirred(adapted("gpt2", adapter).read(), seed=3)), "the start was written to"


def test_a_base_that_changes_stops_the_run():
    one = trainer(Local(steps=1, batch=4))

    def vandal(now):
        with torch.no_grad():
            one.adapted.model.get_input_embeddings().weight[7, 7] += 1
        return scale(now, 0.0)

    with pytest.raises(AdapterError, match="base model was written to"):
        fit(one, start_of(one), pull=vandal)


def test_names_outside_the_order_do_not_change():
    one = trainer(Local(epochs=1, batch=4, lr=0.01, weight_decay=0.5))
    start = start_of(one)
    half = [name for name in start if "lora_B" in name]
    got = fit(one, start, trains=half).fitted
    for name in start:
        assert torch.equal(got[name], start[name]) == (name not in half)
    assert not any(torch.equal(t, start[n]) for n, t in fit(one, start).fitted.items()), (
        "the next order trains everything again"
    )


def test_a_fit_knows_nothing_of_the_one_before():
    one = trainer(Local(epochs=1, batch=4, lr=0.01))
    start = start_of(one)
    first = fit(one, start).fitted
    fit(one, stirred(start, seed=8), client="bob", round=5)
    assert same(fit(one, start).fitted, first)


# ---- chance


def chancy(given=ROWS[:1]):
    """One row only, so that the order of rows plays no part."""
    one = attach(made().model, Lora(rank=4, dropout=0.3), 0)
    return trainer(Local(steps=3, batch=1, lr=0.01), given=given, one=one)


def test_dropout_is_drawn_from_the_seed_the_round_the_attempt_and_the_client():
    one = chancy()
    start = start_of(one)
    first = fit(one, start).fitted
    torch.manual_seed(123)
    assert same(fit(one, start).fitted, first)
    others = [{"seed": 1}, {"round": 1}, {"attempt": 1}, {"client": "bob"}]
    plain = trainer(Local(steps=3, batch=1, lr=0.01), given=ROWS[:1])
    still = fit(plain, start).fitted
    for other in others:
        assert not same(fit(one, start, **other).fitted, first), other
        assert same(fit(plain, start, **other).fitted, still), "not by dropout alone"


def test_the_order_of_rows_is_drawn_too():
    one = trainer(Local(epochs=1, batch=4, lr=0.01))
    start = start_of(one)
    first = fit(one, start).fitted
    for other in ({"seed": 1}, {"round": 1}, {"attempt": 1}, {"client": "bob"}):
        assert not same(fit(one, start, **other).fitted, first), other


def test_the_global_generator_is_left_alone():
    one = chancy()
    torch.manual_seed(77)
    state = torch.get_rng_state()
    fit(one, start_of(one))
    assert torch.equal(torch.get_rng_state(), state)


# ---- gradient checkpointing, precision


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("adapter", ["lora", "dora", "ia3", "prompt", "full"])
def test_gradient_checkpointing_gives_the_same_numbers(adapter):
    results = []
    for checkpointing in (False, True):
        plan = make_plan(
            {
                "model": {
                    "config": {"model_type": "llama", **ARCHITECTURES["llama"]},
                    "device": "cpu",
                    "gradient_checkpointing": checkpointing,
                },
                "adapter": ADAPTERS[adapter].model_dump(),
                "data": {"train": "microworld"},
            }
        )
        base = made()
        one = trainer(Local(epochs=1, batch=4, lr=0.01), one=make_adapter(plan, base))
        calls = []
        base.model.model.layers[0].mlp.register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        results.append(fit(one, start_of(one)).fitted)
        assert len(calls) == (6 if checkpointing else 3), "each layer is computed again"
    assert same(*results)


@pytest.mark.parametrize("adapter", PEFT_KINDS)
def test_an_fp32_adapter_learns_on_a_bf16_base(adapter):
    one = trainer(Local(steps=8, batch=10, lr=0.02), adapter, precision="bf16")
    start = start_of(one)
    got = fit(one, start)
    assert {t.dtype for t in got.fitted.values()} == {torch.float32}
    again = fit(one, got.fitted)
    assert again.metrics["loss"] < got.metrics["loss"]
    assert all(t.isfinite().all() for t in got.fitted.values())
    assert any(not torch.equal(t, t.bfloat16().float()) for t in got.fitted.values())


# ---- a whole round


def test_the_global_adapter_is_the_weighted_mean_of_the_clients(tmp_path):
    """What Shepherd lost under a newer PEFT: its "average" was the last client's weights."""
    sizes = {"ann": ROWS[:2], "bob": ROWS[2:9], "cat": ROWS[9:]}
    llama = adapted("llama", "lora")
    one = Supervised(llama, sizes, Local(epochs=1, lr=0.01), 1, Forward(llama.model, 0, CPU))
    start = start_of(one)
    engine = InProcess(
        lambda ask, client, home: answer(ask, client, home, one, fedavg()),
        [Client(name, len(given), 0) for name, given in sizes.items()],
        Homes(tmp_path),
    )
    policy = Policy(Uniform(3), Renormalised(by_examples))
    state = State(0, {ADAPTER: start})
    [done] = rounds(state, fedavg(), engine, policy, seed=0, until=1)
    each = {name: fit(one, start, client=name).fitted for name in sizes}
    for name, tensor in done.state.adapter.items():
        mean = sum(each[c][name].double() * len(given) / 10 for c, given in sizes.items())
        torch.testing.assert_close(tensor, mean.float(), rtol=1e-6, atol=1e-8)
    assert not any(same(done.state.adapter, tree) for tree in each.values())
    assert all(not same(one, other) for one, other in pairwise(each.values()))


# ---- learning rates


def rates(rounds=3, steps=4, **settings):
    plan = Local(steps=steps, lr=2.0, **settings)
    return [
        lr_at(plan, round + step / steps, 1 / steps, rounds)
        for round in range(rounds)
        for step in range(steps)
    ]


def test_a_constant_rate_is_constant():
    assert rates() == [2.0] * 12


def test_linear_decay_falls_evenly_to_zero_at_the_end_of_the_last_round():
    assert rates(schedule="linear") == pytest.approx([2 * (1 - i / 12) for i in range(12)])


def test_the_cosine_falls_to_zero_at_the_end_of_the_last_round():
    found = rates(schedule="cosine")
    wanted = [1 + math.cos(math.pi * i / 12) for i in range(12)]
    assert found == pytest.approx(wanted)
    assert found[6] == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_climbs_evenly_to_the_full_rate_at_its_last_step(schedule):
    found = rates(schedule=schedule, warmup=1.5)
    assert found[:6] == pytest.approx([2 * (i + 1) / 6 for i in range(6)])
    assert found[6] == 2.0, "decay begins from the full rate"
    assert all(a >= b for a, b in pairwise(found[6:]))
    assert found[-1] > 0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 2.0])
def test_rates_run_on_across_rounds_without_a_jump(schedule, warmup):
    found = rates(rounds=5, steps=40, schedule=schedule, warmup=warmup)
    steepest = 2 * math.pi / 2 / (5 - warmup) / 40
    climb = 2 / (warmup * 40) if warmup else 0
    assert max(abs(a - b) for a, b in pairwise(found)) <= max(steepest, climb) + 1e-9
    plan = Local(steps=40, lr=2.0, schedule=schedule, warmup=warmup)
    assert lr_at(plan, 5.0, 1 / 40, 5) == pytest.approx(0, abs=1e-12)


def test_a_warm_up_shorter_than_a_step_is_no_warm_up():
    assert rates(warmup=0.1)[0] == 2.0
