"""One client's training against textbook loops written without any of fedit's training code."""

import math
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import nn

from fedit import make_plan
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import fedprox
from fedit.algorithms.fedsam import fedsam
from fedit.build import make_adapter
from fedit.config import Local, Lora
from fedit.core.client import answer
from fedit.core.errors import FeditError
from fedit.core.fitting import Aim, Look, Work
from fedit.core.lora import layers
from fedit.core.messages import ADAPTER, BASE, Client, Home, Order, State
from fedit.core.rounds import Policy, rounds
from fedit.core.seeds import generator
from fedit.core.tree import Tree, map_trees, norm, same, scale, sub
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess
from fedit.selection.samplers import Uniform
from fedit.selection.weights import Renormalised, by_examples
from fedit.train.adapters import AdapterError, attach
from fedit.train.batches import collate, token_losses
from fedit.train.forward import Forward
from fedit.train.model import fingerprint
from fedit.train.optimizers import lr_at
from fedit.train.sft import Imitation
from fedit.train.trainer import LocalTrainer
from tests.zoo import ADAPTERS, ARCHITECTURES, PEFT_KINDS, adapted, made, padded, rows, stirred

CPU = torch.device("cpu")
ROWS = rows((5, 9), (3, 2), (8, 30), (2, 1), (6, 4), (4, 17), (9, 3), (1, 6), (7, 12), (3, 3))
LORA = Lora(rank=4, alpha=8)


def trainer(plan, adapter="lora", given=ROWS, rounds=1, one=None, **options):
    one = one or adapted("llama", adapter, **options)
    forward = Forward(one.model, 0, CPU)
    return LocalTrainer(one, {"ann": given, "bob": given}, plan, rounds, forward, Imitation())


def order(of, round=0, seed=0, attempt=0, trains=None):
    names = frozenset(of.adapted.parameters)
    trains = names if trains is None else frozenset(trains)
    return Order(round, attempt, seed, {}, {"ann": 1.0, "bob": 1.0}, trains, names)


def fit(of, start, pull=None, memory=None, client="ann", **asked):
    return of.fit(client, order(of, **asked), start, Aim(pull), memory or {})


def start_of(of):
    """An adapter whose every factor is at work."""
    return stirred(of.adapted.read(), seed=3)


def batches(size, steps, round=0, client="ann", given=ROWS, again=()):
    """The documented order: one permutation an epoch from the stream of this fit."""
    rng = generator(0, "fit", round, 0, client, *again, "order")
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


def test_nothing_takes_more_rows_at_once_than_a_micro_batch(monkeypatch):
    seen = []

    @dataclass(frozen=True)
    class Counting(Imitation):
        def ready(self, adapted, forward, rows, batch):
            seen.append(batch)
            return super().ready(adapted, forward, rows, batch)

        def __call__(self, forward, rows):
            seen.append(len(rows))
            return super().__call__(forward, rows)

    one = trainer(Local(batch=6, micro_batch=2, steps=1, lr=0.1))
    one = replace(one, objective=Counting())
    start = start_of(one)
    with_micro = one.loss("ann", order(one), start)
    monkeypatch.setattr(
        "fedit.train.trainer.text_vectors", lambda forward, texts, size: seen.append(size)
    )
    one.texts("ann", order(one), start)
    fit(one, start)
    assert max(seen) == 2
    assert len(seen) == 1 + 5 + 1 + 3, "made ready, ten rows' loss, their texts, one step of six"
    whole = trainer(Local(batch=6, steps=1, lr=0.1))
    assert with_micro == pytest.approx(whole.loss("ann", order(whole), start), rel=1e-6)


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


# ---- gradients taken ahead


def uphill(rho):
    return Look(lambda slopes: scale(slopes, rho / norm(slopes)))


def looking_loop(start, schedule, ahead, *, rate, clip=None, pull=None):
    """`schedule`: the rows of each step's gradients where it stands, and of those it steps along.

    `ahead`: those gradients' global norm → what they are multiplied with to look ahead.
    """
    model, named = plain_model(start)
    leaves = list(named.values())
    for here, there in schedule:
        slopes = torch.autograd.grad(plain_loss(model, here), leaves)
        factor = ahead(math.sqrt(sum(float(g.double().square().sum()) for g in slopes)))
        stood = [p.detach().clone() for p in leaves]
        with torch.no_grad():
            for p, g in zip(leaves, slopes, strict=True):
                p.add_(factor * g)
        slopes = list(torch.autograd.grad(plain_loss(model, there), leaves))
        if pull:
            slopes = [g + pull * p for g, p in zip(slopes, stood, strict=True)]
        length = math.sqrt(sum(float(g.double().square().sum()) for g in slopes))
        shrunk = min(1.0, clip / length) if clip else 1.0
        with torch.no_grad():
            for p, old, g in zip(leaves, stood, slopes, strict=True):
                p.copy_(old - rate * shrunk * g)
    return {name: p.detach().clone() for name, p in named.items()}


def agree(found, wanted, start, plain=None):
    """The same way from the start within 10⁻⁴ of its length; and not the way of plain training."""
    way = norm(sub(wanted, start))
    assert norm(sub(found, wanted)) < 1e-4 * way
    assert plain is None or norm(sub(plain, wanted)) > 1e-2 * way


@pytest.mark.parametrize(
    ("clip", "micro", "pull"),
    [(None, None, None), (0.05, None, None), (None, 2, None), (0.05, 1, 0.7), (None, None, 0.7)],
)
def test_sams_steps_are_those_worked_out_with_autograd(clip, micro, pull):
    plan = Local(steps=3, batch=4, micro_batch=micro, lr=0.1, optimizer="sgd", clip=clip)
    one = trainer(plan)
    start = start_of(one)
    added = (lambda now: scale(now, pull)) if pull else None
    found = one.fit("ann", order(one), start, Aim(added, uphill(0.5)), {})
    schedule = [(b, b) for b in batches(4, 3)]
    wanted = looking_loop(
        start, schedule, lambda length: 0.5 / length, rate=0.1, clip=clip, pull=pull
    )
    agree(found.fitted, wanted, start, fit(one, start, pull=added).fitted)
    assert found.metrics["tokens"] == 2 * fit(one, start).metrics["tokens"], "both passes count"
    assert found.metrics["samples"] == fit(one, start).metrics["samples"]


def test_fedsam_is_that_step():
    plan = Local(steps=2, batch=4, lr=0.1, optimizer="sgd", clip=None)
    one = trainer(plan)
    start = start_of(one)
    ask = replace(order(one), public={ADAPTER: start})
    update, _ = answer(ask, "ann", Home(), one, fedsam(0.5))
    assert same(
        update.payload[ADAPTER],
        one.fit("ann", order(one), start, Aim(look=uphill(0.5)), {}).fitted,
    )
    wanted = looking_loop(
        start, [(b, b) for b in batches(4, 2)], lambda length: 0.5 / length, rate=0.1
    )
    agree(update.payload[ADAPTER], wanted, start)


def test_a_fresh_look_takes_the_next_batch_and_goes_on_after_it():
    """Two batches a step: their gradients here and ahead; the epoch of three is gone through anew."""
    plan = Local(steps=3, batch=4, lr=0.1, optimizer="sgd", clip=None)
    one = trainer(plan)
    start = start_of(one)

    def down(slopes):
        return scale(slopes, -0.2)

    fresh = one.fit("ann", order(one), start, Aim(look=Look(down, fresh=True)), {})
    six = batches(4, 6)
    schedule = list(zip(six[::2], six[1::2], strict=True))
    wanted = looking_loop(start, schedule, lambda _: -0.2, rate=0.1)
    stale = one.fit("ann", order(one), start, Aim(look=Look(down)), {})
    agree(fresh.fitted, wanted, start, stale.fitted)
    both = sum(len(row.ids) for batch in six for row in batch)
    assert fresh.metrics["tokens"] == both
    assert fresh.metrics["samples"] == sum(len(batch) for batch in six[::2])
    assert fresh.metrics["steps"] == 3


def test_after_a_look_the_weights_are_back_to_the_bit():
    """A step without length: what the pull sees of the parameters is where they stood."""
    plan = Local(steps=4, batch=4, lr=1e-30, optimizer="sgd", clip=None)
    one = trainer(plan)
    start, seen, asked = start_of(one), [], []

    def ahead(slopes):
        asked.append(slopes)
        return scale(slopes, 1e3)

    def watch(now):
        seen.append(now)
        return scale(now, 0.0)

    found = one.fit("ann", order(one), start, Aim(watch, Look(ahead)), {})
    assert len(seen) == len(asked) == 4
    assert all(same(now, start) for now in seen)
    assert same(found.fitted, start)
    assert not same(asked[0], asked[1]), "of each batch its own gradients"


def test_a_look_to_where_one_stands_is_plain_training():
    """Of the look only the place matters: the optimizer is given the gradients ahead and no others."""
    plan = Local(steps=3, batch=4, lr=0.01)
    one = trainer(plan)
    start = start_of(one)
    still = Aim(look=Look(lambda slopes: scale(slopes, 0.0)))
    assert same(one.fit("ann", order(one), start, still, {}).fitted, fit(one, start).fitted)


def test_the_look_is_among_what_trains():
    plan = Local(steps=1, batch=4, lr=0.1, optimizer="sgd", clip=None)
    one = trainer(plan)
    start, asked = start_of(one), []
    half = frozenset(name for name in start if "lora_B" in name)

    def ahead(slopes):
        asked.append(set(slopes))
        return slopes

    found = one.fit("ann", order(one), start, Aim(look=Look(ahead), trains=half), {}).fitted
    assert asked == [half]
    assert {name for name in start if not torch.equal(found[name], start[name])} == half


# ---- a fit's own names, a further fit


def test_an_aim_may_train_other_names_than_the_order():
    plan = Local(epochs=1, batch=4, lr=0.01, weight_decay=0.5, keep_optimizer=True)
    one = trainer(plan)
    start = start_of(one)
    a, b = (frozenset(n for n in start if part in n) for part in ("lora_A", "lora_B"))
    ours = one.fit("ann", order(one, trains=b), start, Aim(trains=a), {})
    theirs = fit(one, start, trains=a)
    assert same(ours.fitted, theirs.fitted)
    assert {n for n in start if not torch.equal(ours.fitted[n], start[n])} == a
    assert all(tree.keys() == a for tree in ours.memory.values())
    assert same(fit(one, start, trains=b).fitted, fit(one, start, trains=b).fitted)


def test_a_further_fit_draws_its_own_batches():
    plan = Local(epochs=1, batch=4, lr=0.01)
    one = trainer(plan)
    start = start_of(one)
    further = one.fit("ann", order(one), start, Aim(again="own"), {}).fitted
    schedule = [(0.01, b) for b in batches(4, 3, again=("own",))]
    assert same(further, plain_loop(start, schedule, adamw(), 1.0))
    other = one.fit("ann", order(one), start, Aim(again="other"), {}).fitted
    assert not same(further, other)
    assert not same(further, fit(one, start).fitted)


def test_a_further_fit_draws_its_own_dropout():
    one = chancy()
    start = start_of(one)
    fits = [
        one.fit("ann", order(one), start, Aim(again=name), {}).fitted for name in ("", "a", "b")
    ]
    assert not any(same(*pair) for pair in combinations(fits, 2))
    assert same(one.fit("ann", order(one), start, Aim(again="a"), {}).fitted, fits[1])


@dataclass(frozen=True)
class Twice:
    """Trains from what it received, and once more, before or after, for nobody but itself."""

    first: bool
    further: list[Tree]
    roles: tuple[str, ...] = ()

    def __call__(self, start, order, home, fit):
        if self.first:
            self.further.append(fit(start, again="own").fitted)
        work = Work(fit(start))
        if not self.first:
            self.further.append(fit(start, again="own").fitted)
        return work


@pytest.mark.parametrize("first", [True, False])
def test_a_further_fit_leaves_the_first_and_its_optimizer_alone(first):
    plan = Local(batch=4, epochs=1, lr=0.01, keep_optimizer=True)
    one = trainer(plan, rounds=2)
    start, results, further = start_of(one), [], []
    for algorithm in (fedavg(), replace(fedavg(), local=Twice(first, further))):
        home, now = Home(), start
        for number in range(2):
            received = now
            ask = replace(order(one), round=number, public={ADAPTER: now})
            update, home = answer(ask, "ann", home, one, algorithm)
            now = update.payload[ADAPTER]
        results.append((now, home.payload))
    (plain, kept), (ours, ours_kept) = results
    assert same(plain, ours)
    assert kept.keys() == ours_kept.keys() != set()
    assert all(same(kept[role], ours_kept[role]) for role in kept)
    schedule = [(0.01, b) for b in batches(4, 3, 1, again=("own",))]
    agree(further[1], plain_loop(received, schedule, adamw(), 1.0), received)  # a fresh optimizer


# ---- the loss of a place


@pytest.mark.parametrize("size", [1, 3, 10])
def test_the_loss_is_the_mean_over_all_learned_tokens(size):
    """However rows are put together: not the mean of batches' or of rows' means."""
    one = trainer(Local(batch=size))
    start = start_of(one)
    model, _ = plain_model(start)
    with torch.no_grad():
        wanted = float(plain_loss(model.eval(), ROWS))
    one.adapted.write(stirred(start, seed=8))
    assert one.loss("ann", order(one), start) == pytest.approx(wanted, rel=1e-5)
    other = one.loss("ann", order(one), stirred(start, seed=8))
    assert other != pytest.approx(wanted, rel=1e-3)


def test_the_loss_has_no_dropout_and_no_chance_in_it():
    one = chancy(ROWS)
    still = trainer(Local(batch=1), one=attach(made().model, Lora(rank=4), 0))
    start = start_of(one)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    wanted = still.loss("ann", order(still), start)
    for asked in ({}, {"round": 3}, {"seed": 9}, {"attempt": 1}):
        assert one.loss("ann", order(one, **asked), start) == wanted
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loss_may_be_of_rows_drawn_for_the_round():
    """The same rows for all that a round compares, others in the next; many draws have the mean of all."""
    some, all_of = trainer(Local(batch=4, loss_rows=3)), trainer(Local(batch=4))
    start = start_of(some)
    each = {all_of.loss("ann", order(all_of, round=r), start) for r in range(3)}
    drawn = [some.loss("ann", order(some, round=r), start) for r in range(40)]
    assert len(each) == 1
    assert len(set(drawn)) > 30
    assert drawn[0] == some.loss("ann", order(some, round=0, attempt=1), start)
    assert drawn[0] != some.loss("bob", order(some, round=0), start)
    assert sum(drawn) / 40 == pytest.approx(each.pop(), rel=0.05)
    enough = trainer(Local(batch=4, loss_rows=10))
    assert enough.loss("ann", order(enough), start) == all_of.loss("ann", order(all_of), start)


def test_to_ask_for_a_loss_changes_nothing_of_the_training_after_it():
    one = chancy(ROWS)
    start = start_of(one)
    usual = fit(one, start)
    assert one.loss("ann", order(one), usual.fitted) < one.loss("ann", order(one), start)
    after = fit(one, start)
    assert same(after.fitted, usual.fitted)
    assert after.metrics["loss"] == usual.metrics["loss"]


def test_the_loss_knows_what_was_added_to_the_base():
    """s B A of a layer in its base, and B zero there, is the layer with its adapter."""
    one = trainer(Local(batch=4))
    start = start_of(one)
    [layer, *_] = layers(start)
    a, b = layers(start)[layer]
    moved = {layer: LORA.scale * start[b] @ start[a]}
    without = {**start, b: torch.zeros_like(start[b])}
    usual, bare = (one.loss("ann", order(one), at) for at in (start, without))
    shifted = one.loss("ann", replace(order(one), public={BASE: moved}), without)
    assert shifted == pytest.approx(usual, rel=1e-6)
    assert shifted != pytest.approx(bare, rel=1e-5)
    assert one.loss("ann", order(one), without) == bare, "the base is what it was"


def test_a_client_without_anything_to_learn_has_no_loss():
    nothing = replace(ROWS[0], learn=ROWS[0].learn & False)
    for given, said in (([], "has no example"), ([nothing] * 3, "none of")):
        one = trainer(Local(batch=2), given=given)
        with pytest.raises(FeditError, match=said):
            one.loss("ann", order(one), one.adapted.read())
    some, all_of = (
        trainer(Local(batch=1), given=[nothing, ROWS[1]]),
        trainer(Local(batch=1), given=[ROWS[1]]),
    )
    start = start_of(some)
    assert some.loss("ann", order(some), start) == all_of.loss("ann", order(all_of), start)


# ---- the path


@pytest.mark.parametrize("round", [0, 2])
def test_the_path_is_the_sum_of_the_rates(round):
    plan = Local(batch=4, epochs=1, lr=0.02, schedule="cosine")
    one = trainer(plan, rounds=4)
    rates = [0.02 * 0.5 * (1 + math.cos(math.pi * ((round + step / 3) / 4))) for step in range(3)]
    assert fit(one, start_of(one), round=round).path == pytest.approx(sum(rates), rel=1e-12)
    still = trainer(Local(batch=4, steps=5, lr=0.03), one=one.adapted)
    assert fit(still, start_of(one)).path == pytest.approx(5 * 0.03, rel=1e-12)


def test_the_way_over_its_path_is_the_mean_gradient():
    """With unlike rates the gradients count by their rates; here the rates fall linearly to none."""
    plan = Local(steps=3, batch=4, lr=0.2, schedule="linear", optimizer="sgd", clip=None)
    one = trainer(plan)
    start = start_of(one)
    found = fit(one, start)
    model, named = plain_model(start)
    rates, mean = [0.2, 0.2 * 2 / 3, 0.2 / 3], scale(start, 0.0)
    for rate, rows_of in zip(rates, batches(4, 3), strict=True):
        slopes = torch.autograd.grad(plain_loss(model, rows_of), list(named.values()))
        with torch.no_grad():
            for (name, p), g in zip(named.items(), slopes, strict=True):
                mean[name] += rate / sum(rates) * g
                p.sub_(rate * g)
    way = scale(sub(start, found.fitted), 1 / found.path)
    assert norm(sub(way, mean)) < 1e-4 * norm(mean)


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
    plan, forward = Local(epochs=1, lr=0.01), Forward(llama.model, 0, CPU)
    one = LocalTrainer(llama, sizes, plan, 1, forward, Imitation())
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
