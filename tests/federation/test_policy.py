"""What a site allows: refusals name both values; counts and metrics leave as the policy says."""

import resource
import signal
import sys
import time

import pytest
import torch

pytest.importorskip("psutil", reason="needs the extra federation")

from fedit.config import Model, Policy, Site
from fedit.core.errors import FeditError, InputError
from fedit.core.messages import Client, Failure
from fedit.federation.limits import explained, within
from fedit.federation.policy import check_recipe, check_work, told_count, told_metrics
from fedit.federation.terms import at_a_site, recipe_hash, shared, with_own_base
from tests.tiny import tiny

METRICS = {"loss": 1.5, "steps": 2.0, "bytes_up": 10.0, "accuracy": 0.5}


@pytest.mark.parametrize(
    ("policy", "changes", "said"),
    [
        ({"steps": 1}, {}, "steps: the recipe asks for 2, the site allows 1"),
        (
            {"epochs": 1},
            {"local": {"steps": None, "epochs": 3}},
            "epochs: .* asks for 3, .* allows 1",
        ),
        ({"rounds": 2}, {}, "rounds: the recipe asks for 3, the site allows 2"),
        (
            {"adapters": ["ia3"]},
            {},
            r"adapters: the recipe asks for lora, the site allows \['ia3'\]",
        ),
        ({"bases": ["microworld"]}, {}, "bases: the recipe asks for a model made on the spot"),
    ],
)
def test_a_recipe_that_asks_for_more_is_refused(policy, changes, said, tmp_path):
    plan = tiny(tmp_path, **changes)
    with pytest.raises(InputError, match=f"policy: {said}"):
        check_recipe(Policy(**policy), plan)
    check_recipe(Policy(), plan)


def test_every_excess_is_named_at_once(tmp_path):
    with pytest.raises(InputError, match=r"steps: .*; rounds: "):
        check_recipe(Policy(steps=1, rounds=1), tiny(tmp_path))


def test_work_is_bounded_by_the_sites_own_rows(tmp_path):
    plan, client = tiny(tmp_path), Client("north", 4, 100)  # two steps of four: two epochs
    check_work(Policy(epochs=2, tokens=200), plan, client)
    with pytest.raises(InputError, match=r"epochs: the recipe asks for 2\.0, the site allows 1\.5"):
        check_work(Policy(epochs=1.5), plan, client)
    with pytest.raises(InputError, match="tokens: the recipe asks for 200, the site allows 199"):
        check_work(Policy(tokens=199), plan, client)


@pytest.mark.parametrize(
    ("counts", "told"), [("exact", 1000), ("rounded", 512), ("withheld", None)]
)
def test_counts_leave_as_the_policy_says(counts, told):
    assert told_count(Policy(counts=counts), 1000) == told


def test_metrics_leave_as_the_policy_says():
    assert told_metrics(Policy(), METRICS, {}) == METRICS
    kept = told_metrics(Policy(metrics=["loss"]), METRICS, {"loss": None})
    assert kept == {"loss": 1.5, "steps": 2.0, "bytes_up": 10.0}
    with pytest.raises(InputError, match="leaves out loss, by which this method combines"):
        told_metrics(Policy(metrics=[]), METRICS, {"loss": None})


def test_a_round_that_takes_too_long_is_broken_off():
    before = signal.getsignal(signal.SIGALRM)
    try:
        with pytest.raises(FeditError, match=r"longer than 0\.05"), within(Policy(seconds=0.05)):
            time.sleep(5)
        with within(Policy(seconds=0.05)):
            pass
        time.sleep(0.1)  # it does not ring afterwards
        with within(Policy()):
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere systems need not keep to the limit")
def test_work_that_needs_more_memory_is_broken_off_and_the_process_stays():
    import psutil

    before = resource.getrlimit(resource.RLIMIT_DATA)
    used = psutil.Process().memory_info().data / 2**30
    policy = Policy(memory=used + 0.5)
    said = rf"policy: memory: the work needs more than {policy.memory:g} GiB"
    for work in (lambda: torch.zeros(2**28), lambda: bytearray(2**30)):
        with pytest.raises(FeditError, match=said), within(policy):
            work()
        with within(policy):
            assert len(torch.zeros(2**20)) == 2**20
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with pytest.raises(RuntimeError, match="of another kind"), within(policy):
        raise RuntimeError("of another kind")
    failed = Failure("north", "error", "RuntimeError: can't allocate memory: 1 byte")
    assert explained(failed, policy).detail.startswith(said[:20])
    assert explained(failed, Policy()) == failed


def test_what_sites_share_leaves_out_what_is_the_servers_own(tmp_path):
    plan = tiny(tmp_path / "run", federation={"rounds": 3, "cohort": 2})
    tree = shared(plan)
    other = tiny(tmp_path / "other", federation={"rounds": 3, "cohort": 3}, evaluation={"limit": 4})
    assert recipe_hash(tree) == recipe_hash(shared(other))
    for changes in ({"local": {"lr": 0.5}}, {"seed": 1}, {"federation": {"rounds": 4}}):
        assert recipe_hash(tree) != recipe_hash(shared(tiny(tmp_path / "run", **changes)))
    assert str(tmp_path) not in str(tree)
    mine = at_a_site(tree, "rows.jsonl", tmp_path, Site(device="cpu", threads=1))
    assert (mine.data.train, mine.threads, mine.local) == ("rows.jsonl", 1, plan.local)


@pytest.mark.parametrize(("most", "given"), [(None, None), (3, 2), (1, 1), (4, 4), (64, 8)])
def test_a_bound_on_rows_at_once_fits_whatever_batch_the_recipe_has(tmp_path, most, given):
    tree = shared(tiny(tmp_path / "run", local={"steps": 1, "batch": 8}))
    mine = at_a_site(tree, "rows.jsonl", tmp_path, Site(micro_batch=most))
    assert (mine.local.micro_batch, mine.local.batch) == (given, 8)


def test_a_sites_copy_of_the_base_is_for_recipes_that_name_one(tmp_path):
    """A model that is made on the spot has no copy: a site that has one for other runs takes part as well."""
    site, made = Site(base="/models/own"), tiny(tmp_path / "run")
    assert with_own_base(made, site) == made
    named = made.model_copy(update={"model": Model(base="owner/name", revision="abc")})
    found = with_own_base(named, site).model
    assert (found.base, found.revision) == ("/models/own", None)
    assert with_own_base(named, Site()) == named
