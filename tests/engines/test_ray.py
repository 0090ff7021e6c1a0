"""Ray actors: the same bits as in process, whoever dies; a cluster that was joined is left as it was."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

from fedit import make_plan, run
from fedit.algorithms.fedavg import fedavg
from fedit.algorithms.fedprox import fedprox
from fedit.build import build
from fedit.core.errors import FeditError, InputError
from fedit.core.rounds import rounds
from fedit.core.tree import same
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess
from fedit.engines.ray import Actors
from fedit.engines.workers import Workers
from fedit.recipe import differences, dump_plan
from tests.tiny import finish, journal, tiny
from tests.toy import Opening, Toy, Troubled, last, toy_policy, tree

ray = pytest.importorskip("ray", reason="needs the extra ray")

EVERYONE = toy_policy(1.0, minimum=1)
MANY = 40  # more than there can be groups: some are of one client, some of two


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of one machine of two cores, which others may join."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        yield found
        found.shutdown()


@contextmanager
def on_ray(toy: Toy, address: str, algorithm=None, dropout: float = 0.0, **options):
    homes = Homes(toy.folder / "homes", alone=False)
    opened = Opening(toy.trainer, algorithm or fedavg(), homes.folder, dropout)
    crew = Actors(opened, toy.folder, address=address, **options)
    try:
        yield Workers(crew, toy.population, homes)
    finally:
        crew.close()
        assert not crew._workers
        assert not ray.is_initialized()
        assert not list(homes.folder.glob(".*"))


@contextmanager
def killed(kill):
    """Call `kill` again and again, until it says that it is done or the block ends."""
    stop = threading.Event()

    def persist() -> None:
        while not stop.wait(0.02) and not kill():
            pass

    thread = threading.Thread(target=persist)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def usual(toy: Toy, algorithm, until: int, dropout: float = 0.0):
    engine = toy.engine(algorithm, place="usual", dropout=dropout)
    return toy.run(algorithm, engine=engine, policy=EVERYONE, until=until)


@pytest.mark.cluster
def test_actors_give_the_bits_of_one_process(cluster, tmp_path):
    """With dropouts, with groups of one and of two, with what clients keep, with a pull."""
    toy, algorithm = Toy(tmp_path, clients=MANY, keep=True), fedprox(0.1)
    expected = usual(toy, algorithm, 3, dropout=0.3)
    with on_ray(toy, cluster.address, algorithm, dropout=0.3) as engine:
        found = toy.run(algorithm, engine=engine, policy=EVERYONE, until=3)
        assert len(engine._crew._workers) == 2
    assert same(last(found), last(expected))
    for mine, other in zip(found, expected, strict=True):
        assert mine.metrics == other.metrics
        assert {f.client for f in mine.failures} == {f.client for f in other.failures} != set()


@pytest.mark.cluster
def test_actors_killed_at_work_and_idle_change_nothing(cluster, tmp_path):
    toy, algorithm, times = Toy(tmp_path, clients=MANY, keep=True), fedavg(), []
    expected = usual(toy, algorithm, 2)
    toy.trainer = Troubled(toy.trainer.targets, True, pause=0.02)
    start, done = algorithm.server.init(tree(1)), []

    def kill() -> bool:
        for actor in list(crew._workers):
            if actor.task and actor.told and actor not in times:
                ray.kill(actor.handle)
                times.append(actor)
                return len(times) == 2
        return False

    with on_ray(toy, cluster.address) as engine:
        crew = engine._crew
        with killed(kill):
            for one in rounds(start, algorithm, engine, EVERYONE, seed=0, until=2):
                done.append(one)
                if one.state.round == 1:
                    ray.kill(crew._workers[0].handle)  # idle between rounds
    assert len(times) == 2
    assert same(last(done), last(expected))


@pytest.mark.cluster
def test_a_machine_lost_in_a_round_is_survived(cluster, tmp_path):
    toy, algorithm, lost = Toy(tmp_path, clients=MANY, keep=True), fedavg(), []
    expected = usual(toy, algorithm, 2)
    toy.trainer = Troubled(toy.trainer.targets, True, pause=0.05)
    node = cluster.add_node(num_cpus=2)

    def kill() -> bool:
        busy = [actor for actor in list(crew._workers) if actor.task]
        if len(busy) < 4:
            return False
        cluster.remove_node(node)
        lost.append(node)
        return True

    with on_ray(toy, cluster.address) as engine:
        crew = engine._crew
        with killed(kill):
            done = toy.run(algorithm, engine=engine, policy=EVERYONE, until=2)
        assert len(crew._workers) == 2
    assert lost
    assert same(last(done), last(expected))


@pytest.mark.cluster
def test_three_deaths_over_one_group_end_the_run(cluster, tmp_path):
    toy, tally = Toy(tmp_path, clients=3), tmp_path / "tally"
    tally.mkdir()
    toy.trainer = Troubled(toy.trainer.targets, True, at="c2", trouble="killed", tally=tally)
    with (
        on_ray(toy, cluster.address, most=1) as engine,
        pytest.raises(FeditError, match="c2: 3 workers died of it, the last with ActorDied"),
    ):
        toy.run(fedavg(), engine=engine, policy=EVERYONE)
    assert len(list(tally.iterdir())) == 3


@pytest.mark.cluster
def test_a_machine_that_does_not_see_the_run_folder_is_refused(cluster, tmp_path):
    toy = Toy(tmp_path)
    with on_ray(toy, cluster.address, most=1) as engine:
        engine._crew._mark.unlink()
        with pytest.raises(InputError, match=r"output .*: machine .* does not see this folder"):
            toy.run(fedavg(), engine=engine)


@pytest.mark.cluster
def test_without_room_for_an_actor_the_run_ends(cluster, tmp_path):
    toy = Toy(tmp_path)
    with (
        on_ray(toy, cluster.address, cpus=64) as engine,
        pytest.raises(FeditError, match="no machine with 64 CPU for an actor"),
    ):
        toy.run(fedavg(), engine=engine)


@pytest.mark.cluster
def test_a_script_keeps_the_ray_it_has_started(cluster, tmp_path):
    with ray.init(cluster.address, log_to_driver=False, logging_level="ERROR"):
        Actors(Toy, tmp_path).close()
        assert ray.is_initialized()
        assert len(ray.nodes()) >= 1


# ---- whole runs


def test_a_run_on_this_machines_own_ray_is_the_run_in_process(tmp_path):
    changes = {
        "local": {"keep_optimizer": True},
        "federation": {"dropout": 0.3, "minimum": 1, "rounds": 2},
    }
    usual = finish(tiny(tmp_path / "usual", **changes))
    assert finish(tiny(tmp_path / "ray", engine={"kind": "ray", "actors": 2}, **changes)) == usual
    for mine, other in zip(*(journal(tmp_path / n) for n in ("ray", "usual")), strict=True):
        for key in ("cohort", "loss", "evaluation", "bytes_up", "bytes_down"):
            assert mine.get(key) == other.get(key)
    assert not ray.is_initialized()


def test_what_is_only_counted_starts_no_ray(tmp_path):
    assert isinstance(build(tiny(tmp_path, engine="ray"), tmp_path, blank=True).engine, InProcess)
    assert not ray.is_initialized()


def works(process: psutil.Process) -> bool:
    """Whether it runs and matters: Ray's two agents end by themselves, a minute after a kill."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE and not process.name().endswith("Agent")
    return False


@pytest.mark.cluster
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_a_run_is_stopped_its_ray_ends(sent, tmp_path):
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "run"
    plan = tiny(
        output, name="recipe", federation={"rounds": 400}, engine={"kind": "ray", "actors": 1}
    )
    recipe.write_text(dump_plan(plan))
    process = subprocess.Popen(
        [sys.executable, "-m", "fedit.cli", "run", str(recipe)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    path = output / "journal.jsonl"
    while process.poll() is None and not (path.exists() and path.read_text().count("\n") > 2):
        time.sleep(0.05)
    began = psutil.Process(process.pid).children(recursive=True)
    assert len(began) >= 3  # Ray's two servers, an actor
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does: to everyone
    else:
        process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130)
    assert "Traceback" not in said
    deadline = time.monotonic() + 30
    while (left := [p for p in began if works(p)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_within_a_worker_of_a_study_clients_train_in_process(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fedit.build.hosting.current_process", lambda: type("P", (), {"daemon": True})
    )
    assert isinstance(build(tiny(tmp_path, engine="ray"), tmp_path).engine, InProcess)


# ---- what is refused before anything is trained


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("fedit.engines.cluster.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"engine ray needs ray; pip install 'fedit\[ray\]'"):
        next(run(tiny(tmp_path / "run", engine="ray")))
    assert not (tmp_path / "run").exists()


def test_an_address_where_nobody_listens_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        plan = tiny(tmp_path / "run", engine={"kind": "ray", "address": address})
        with pytest.raises(InputError, match=rf"engine.address: {address} cannot be reached"):
            next(run(plan))
    assert not (tmp_path / "run").exists()


def test_the_plan_of_a_run_on_ray_reads_back_as_it_was_written(tmp_path):
    plan = tiny(tmp_path, engine={"kind": "ray", "gpus": 1})
    assert make_plan(plan.model_dump(mode="json")) == plan
    assert not differences(make_plan(plan.model_dump(mode="json")), plan)
    usual = tiny(tmp_path, engine="ray")
    assert not differences(make_plan(usual.model_dump(mode="json")), usual)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"address": "somewhere"}, "address"),
        ({"cpus": 0}, "an actor needs one of them"),
        ({"gpus": 2}, "gpus"),
        ({"actors": 0}, "actors"),
    ],
)
def test_what_no_cluster_can_give_is_refused_with_the_plan(engine, said):
    with pytest.raises(InputError, match=said):
        make_plan({"engine": {"kind": "ray", **engine}})
