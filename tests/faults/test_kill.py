"""SIGKILL at every kind of moment, then resume: the adapter must be the one of a run never killed."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedit import Plan, run
from fedit.recipe import dump_plan
from fedit.train.trainer import LocalTrainer
from tests.forked import Forked
from tests.tiny import adapter_bytes, finish, journal, tiny


def counted(count: Callable[[], None]) -> None:
    """Call `count` just before every step at which the disk or a client changes."""
    for owner, name in ((os, "fsync"), (os, "replace"), (LocalTrainer, "fit")):
        real = getattr(owner, name)

        def step(*args, real=real, **options):
            count()
            return real(*args, **options)

        setattr(owner, name, step)


def in_child(plan: Plan, kill_at: int | None, resume: bool) -> int:
    """Run in a forked child that kills itself before step number `kill_at`; the steps it made."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        steps = 0
        one_at_a_time = threading.Lock()  # homes are flushed by several threads

        def count() -> None:
            nonlocal steps
            with one_at_a_time:
                if steps == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                steps += 1
                os.write(write, b".")

        counted(count)
        try:
            for _ in run(plan, resume=resume):
                pass
        finally:
            os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    made = len(os.read(read, 10**6))
    os.close(read)
    assert os.WIFSIGNALED(status) == (kill_at is not None and made == kill_at)
    return made


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> tuple[bytes, int]:
    """The undisturbed adapter, and how many steps its run makes."""
    folder = tmp_path_factory.mktemp("usual")
    options = {"local": {"keep_optimizer": True}, "federation": {"rounds": 2}}
    steps = in_child(tiny(folder / "run", **options), None, resume=False)
    assert steps > 25
    return adapter_bytes(folder / "run"), steps


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("part", range(4))
def test_killed_before_any_step_and_resumed_is_never_killed(part, usual, tmp_path):
    """Clients keep their optimizers here, so that homes are taken back as well as the server's state."""
    expected, steps = usual
    options = {"local": {"keep_optimizer": True}, "federation": {"rounds": 2}}
    for kill_at in range(part, steps, 4):
        plan = tiny(tmp_path / f"at-{kill_at}", **options)
        in_child(plan, kill_at, resume=False)
        assert finish(plan, resume=True) == expected, f"killed before step {kill_at} of {steps}"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_killed_three_times_at_random_ends_with_the_same_bytes(tmp_path):
    rounds = {"rounds": 12}
    expected = finish(tiny(tmp_path / "usual", federation=rounds))
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(dump_plan(tiny(output, name="recipe", federation=rounds)))
    chance = random.Random(7)
    seen = -1
    for _ in range(3):
        process = Forked(tmp_path / "log", "run", str(recipe), "--resume", "--quiet")
        while process.poll() is None and _rounds(output) <= seen + 1:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.2))
        process.send(signal.SIGKILL)
        process.wait()
        seen = _rounds(output)
    last = Forked(tmp_path / "log", "run", str(recipe), "--resume", "--quiet")
    assert last.wait() == 0, last.said()
    assert adapter_bytes(output) == expected
    assert [record["round"] for record in journal(output)] == list(range(13))


def _rounds(output: Path) -> int:
    path = output / "journal.jsonl"
    return path.read_text().count("\n") if path.exists() else -1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_at_once_and_says_how_to_resume(signal_sent, tmp_path):
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(dump_plan(tiny(output, name="recipe", federation={"rounds": 10_000})))
    process = Forked(tmp_path / "log", "run", str(recipe))
    while process.poll() is None and _rounds(output) < 2:
        time.sleep(0.05)
    process.send(signal_sent)
    assert process.wait() == 130
    assert f"fedit run --resume {output}" in process.said()
    assert "Traceback" not in process.said()
