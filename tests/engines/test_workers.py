"""Worker processes: the same bits as in process, whoever dies; nobody is left behind."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fedit import run
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import fedprox
from fedit.build import PRELOAD, build
from fedit.core.errors import BrokenInvariant, FeditError, InputError
from fedit.core.messages import Failure, Order, Update
from fedit.core.population import Share
from fedit.core.rounds import rounds
from fedit.core.tree import same
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess
from fedit.engines.processes import Processes, available_cores
from fedit.engines.workers import Workers
from fedit.recipe import dump_plan
from tests.tiny import adapter_bytes, finish, journal, tiny
from tests.toy import Opening, Toy, Troubled, last, toy_policy, tree

EVERYONE = toy_policy(1.0, minimum=1)
MANY = 40  # more than there can be groups: some are of one client, some of two


@contextmanager
def on_workers(toy: Toy, algorithm=None, processes: int = 2, dropout: float = 0.0, opened=None):
    folder = toy.folder / "workers"
    opened = opened or Opening(toy.trainer, algorithm or fedavg(), folder, dropout)
    engine = Workers(Processes(processes, opened, PRELOAD), toy.population, Homes(folder))
    try:
        yield engine
    finally:
        pids = [worker.process.pid for worker in engine._crew._workers]
        engine.close()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def order(toy: Toy, clients=None, round: int = 0) -> Order:
    names = frozenset(tree(1))
    ids = clients or [client.id for client in toy.population]
    return Order(round, 0, 0, {"adapter": tree(1)}, dict.fromkeys(ids, 1.0), names, names)


@pytest.mark.parametrize("processes", [1, 3])
def test_workers_give_the_bits_of_one_process(processes, tmp_path):
    """With dropouts, with groups of one and of two, with what clients keep, with a pull."""
    toy, algorithm = Toy(tmp_path, clients=MANY, keep=True), fedprox(0.1)
    usual = toy.engine(algorithm, dropout=0.3)
    usual = toy.run(algorithm, engine=usual, policy=EVERYONE, until=3)
    with on_workers(toy, algorithm, processes, dropout=0.3) as engine:
        found = toy.run(algorithm, engine=engine, policy=EVERYONE, until=3)
    assert same(last(found), last(usual))
    for mine, other in zip(found, usual, strict=True):
        assert mine.metrics == other.metrics
        assert list(mine.metrics) == list(other.metrics)
        assert {f.client for f in mine.failures} == {f.client for f in other.failures} != set()


def test_groups_come_back_as_one_share_each_and_single_clients_as_replies(tmp_path):
    toy = Toy(tmp_path, clients=MANY)
    with on_workers(toy) as engine:
        answers = list(engine.ask(order(toy)))
    sizes = [len(a.clients) if isinstance(a, Share) else 1 for a in answers]
    assert sorted(sizes) == [1] * 24 + [2] * 8


def test_a_rule_that_is_not_linear_receives_every_reply(tmp_path):
    toy = Toy(tmp_path, clients=MANY)
    rule = fedavg()
    rule = replace(rule, combine=replace(rule.combine, linear=False))
    with on_workers(toy, rule) as engine:
        answers = list(engine.ask(order(toy)))
    assert len(answers) == MANY
    assert all(isinstance(answer, Update) for answer in answers)


def test_the_groups_with_most_tokens_are_begun_first(tmp_path):
    toy = Toy(tmp_path, clients=4)
    tokens = (5, 50, 20, 10)
    toy.population = [replace(c, tokens=n) for c, n in zip(toy.population, tokens, strict=True)]
    with on_workers(toy, processes=1) as engine:
        assert [r.client for r in engine.ask(order(toy))] == ["c1", "c2", "c3", "c0"]


def test_killed_and_resumed_on_workers_is_never_killed(tmp_path):
    toy, algorithm = Toy(tmp_path, keep=True), fedavg()
    usual = toy.run(algorithm, policy=EVERYONE, until=4)
    with on_workers(toy, algorithm) as engine:
        half = toy.run(algorithm, engine=engine, policy=EVERYONE, until=2)
        ahead = engine.ask(replace(order(toy), round=2))  # begun, and forgotten by the server
        next(ahead)
        ahead.close()
        done = toy.run(algorithm, engine=engine, policy=EVERYONE, state=half[-1].state, until=4)
    assert same(last(done), last(usual))


def test_an_order_that_nobody_waits_for_any_more_leaves_no_answer_behind(tmp_path):
    toy = Toy(tmp_path, clients=8)
    toy.trainer = Troubled(toy.trainer.targets, pause=0.05)
    with on_workers(toy) as engine:
        asked = engine.ask(order(toy))
        next(asked)
        asked.close()
        replies = list(engine.ask(order(toy, ["c1", "c2"], round=1)))
    assert {reply.client for reply in replies} == {"c1", "c2"}
    assert {reply.round for reply in replies} == {1}


# ---- workers that die


def test_workers_killed_at_random_moments_change_nothing(tmp_path):
    toy, algorithm = Toy(tmp_path, clients=MANY, keep=True), fedavg()
    usual = toy.run(algorithm, policy=EVERYONE, until=4)
    toy.trainer = Troubled(toy.trainer.targets, True, pause=0.01)
    chance, killed, stop = random.Random(), 0, threading.Event()
    allowance = threading.Semaphore(2)  # in each round: a third could be the third over one group

    def kill(engine: Workers) -> None:
        nonlocal killed
        while not stop.wait(chance.uniform(0.0, 0.3)):
            workers = list(engine._crew._workers)
            if workers and allowance.acquire(timeout=0.1):
                os.kill(chance.choice(workers).process.pid, signal.SIGKILL)
                killed += 1

    start, done = algorithm.server.init(tree(1)), []
    with on_workers(toy, algorithm) as engine:
        killer = threading.Thread(target=kill, args=(engine,))
        killer.start()
        try:
            for one in rounds(start, algorithm, engine, EVERYONE, seed=0, until=4):
                done.append(one)
                allowance = threading.Semaphore(2)
        finally:
            stop.set()
            killer.join()
    assert killed >= 2
    assert same(last(done), last(usual))


@pytest.mark.parametrize(("trouble", "word"), [("killed", "SIGKILL"), ("exit", "exit code 7")])
def test_three_deaths_over_one_group_end_the_run_and_it_can_be_resumed(trouble, word, tmp_path):
    toy, algorithm = Toy(tmp_path, clients=6, keep=True), fedavg()
    usual = toy.run(algorithm, policy=EVERYONE, until=3)
    state = toy.run(algorithm, place="workers", policy=EVERYONE, until=1)[-1].state
    good, tally = toy.trainer, tmp_path / "tally"
    tally.mkdir()
    toy.trainer = Troubled(good.targets, True, at="c2", trouble=trouble, tally=tally)
    with (
        on_workers(toy) as engine,
        pytest.raises(FeditError, match=f"c2: 3 workers died of it, the last with {word}"),
    ):
        toy.run(algorithm, engine=engine, policy=EVERYONE, state=state, until=3)
    assert len(list(tally.iterdir())) == 3
    toy.trainer = good
    done = toy.run(algorithm, place="workers", policy=EVERYONE, state=state, until=3)
    assert same(last(done), last(usual))


def test_two_deaths_over_a_group_are_forgiven_and_so_is_an_idle_workers(tmp_path):
    toy, algorithm = Toy(tmp_path, clients=MANY, keep=True), fedavg()
    usual = toy.run(algorithm, policy=EVERYONE, until=2)
    tally = tmp_path / "tally"
    tally.mkdir()
    toy.trainer = Troubled(toy.trainer.targets, True, [], "c9", "killed", 2, tally)
    done, start = [], algorithm.server.init(tree(1))
    with on_workers(toy) as engine:
        for one in rounds(start, algorithm, engine, EVERYONE, seed=0, until=2):
            done.append(one)
            for worker in engine._crew._workers:
                worker.process.kill()
                worker.process.join()
    assert len(list(tally.iterdir())) == 2
    assert same(last(done), last(usual))


# ---- errors


def troubled(tmp_path: Path, trouble: str) -> Toy:
    toy = Toy(tmp_path, clients=MANY)
    toy.trainer = Troubled(toy.trainer.targets, False, [], "c7", trouble, tally=tmp_path)
    return toy


def test_a_clients_error_is_its_failure_also_within_a_group(tmp_path):
    toy = troubled(tmp_path, "error")
    with on_workers(toy) as engine:
        [done] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=1)
    assert done.failures == [Failure("c7", "error", "RuntimeError: out of memory")]
    assert len(done.metrics) == MANY - 1


def test_a_poisoned_update_is_refused_before_it_is_added(tmp_path):
    toy = Toy(tmp_path, clients=MANY)
    toy.trainer.targets["c9"]["layer.lora_A"][0, 0] = float("inf")
    with on_workers(toy) as engine:
        [done] = toy.run(fedavg(), engine=engine, policy=EVERYONE, until=1)
    [usual] = toy.run(fedavg(), policy=EVERYONE, until=1)
    assert [f.client for f in done.failures] == ["c9"]
    assert "diverged" in done.failures[0].detail
    assert same(done.state.adapter, usual.state.adapter)


def test_a_broken_invariant_ends_the_run_as_in_process(tmp_path):
    toy = troubled(tmp_path, "broken")
    with on_workers(toy) as engine, pytest.raises(BrokenInvariant, match="the base changed"):
        toy.run(fedavg(), engine=engine, policy=EVERYONE)


def test_a_defect_comes_with_the_workers_traceback(tmp_path):
    toy = troubled(tmp_path, "defect")
    with on_workers(toy) as engine, pytest.raises(RuntimeError) as caught:
        toy.run(fedavg(), engine=engine, policy=EVERYONE)
    assert "Traceback" in str(caught.value)
    assert "in fit" in str(caught.value)
    assert "KeyError: 'bug'" in str(caught.value)


@dataclass(frozen=True)
class Unopenable:
    def __call__(self):
        raise InputError("model.base: cannot be loaded")


def test_a_worker_that_cannot_open_says_why(tmp_path):
    with (
        on_workers(Toy(tmp_path), opened=Unopenable()) as engine,
        pytest.raises(InputError, match=r"model.base: cannot be loaded"),
    ):
        list(engine.ask(order(Toy(tmp_path))))


# ---- whole runs


WORKERS = {"kind": "workers", "processes": 2}
KEPT = {"keep_optimizer": True}
NAMES = ("usual", "workers")
GPT2 = {
    "config": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 400}
}


@pytest.mark.parametrize(
    "changes",
    [
        {"local": KEPT, "federation": {"dropout": 0.3, "minimum": 1}, "adapter": {"dropout": 0.1}},
        {"adapter": "bitfit", "algorithm": "fedprox", "model": GPT2},
    ],
    ids=["lora", "base-trains"],
)
def test_a_run_on_workers_is_the_run_in_process(changes, tmp_path):
    for name, engine in (("usual", "inprocess"), ("workers", WORKERS)):
        for _ in run(tiny(tmp_path / name, engine=engine, **changes)):
            pass
    usual, found = (next((tmp_path / n / "adapter").glob("*.safetensors")) for n in NAMES)
    assert usual.read_bytes() == found.read_bytes()
    for mine, other in zip(*(journal(tmp_path / n) for n in NAMES), strict=True):
        for key in ("cohort", "loss", "evaluation", "bytes_up", "bytes_down"):
            assert mine.get(key) == other.get(key)


def test_within_a_worker_of_a_study_clients_train_in_process(tmp_path, monkeypatch):
    """Such a worker is a daemon, and daemons may have no processes of their own."""
    monkeypatch.setattr(
        "fedit.build.hosting.current_process", lambda: type("P", (), {"daemon": True})
    )
    assert isinstance(build(tiny(tmp_path, engine=WORKERS), tmp_path).engine, InProcess)


def test_without_a_number_there_is_a_worker_for_each_core(tmp_path):
    engine = build(tiny(tmp_path, engine="workers"), tmp_path).engine
    assert isinstance(engine, Workers)
    assert engine._crew._size == available_cores() >= 1


FEDIT = [sys.executable, "-m", "fedit.cli"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> bytes:
    return finish(tiny(tmp_path_factory.mktemp("usual") / "run", federation={"rounds": 12}))


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_however_a_run_is_stopped_no_process_stays_and_it_resumes(sent, usual, tmp_path):
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "run"
    plan = tiny(output, name="recipe", federation={"rounds": 12}, engine=WORKERS)
    recipe.write_text(dump_plan(plan))
    process = subprocess.Popen(
        [*FEDIT, "run", str(recipe)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and _rounds(output) < 2:
        time.sleep(0.01)
    assert len(_session(process.pid)) >= 4  # the run, the fork server, two workers
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does: to everyone
    else:
        process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130)
    assert "Traceback" not in said
    for _ in range(600):
        if not _session(process.pid):
            break
        time.sleep(0.05)
    assert not _session(process.pid)
    assert finish(plan, resume=True) == usual == adapter_bytes(output)


def _rounds(output: Path) -> int:
    path = output / "journal.jsonl"
    return path.read_text().count("\n") if path.exists() else -1


def _session(leader: int) -> list[int]:
    """Living processes of the session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found
