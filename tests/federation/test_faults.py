"""Processes of a federation killed at work: it goes on by itself, with the same bytes where nobody is lost.

Run by `make test-federation`, which prints how long each recovery took.
"""

import json
import os
import random
import re
import shutil
import subprocess

import psutil
import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip("nvflare", reason="needs the extra federation")

from fedit.core.errors import FeditError
from fedit.engines.frames import SOCKET, place_of
from fedit.engines.nvflare.control import Control, client_command, server_command
from fedit.federation.kit import DOOR, WORKER, make_kits
from tests.federation.network import FEDIT, federation
from tests.tiny import finish, tiny

pytestmark = pytest.mark.network

ROUNDS = {"rounds": 10}
ROOM = 12_000
"""Bytes of a file in place of a full disk: less than a home has, and more than messages on a screen."""


def began(ours, round: int = 2) -> None:
    ours.start_all()
    ours.wait_for_round(round)


def told(what: str, seconds: float) -> None:
    print(f"\n{what}: next round after {seconds:.1f} s")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("a worker killed in training", ("fedit.federation.worker", "north")),
        ("a site's job process killed", ("worker_process", "north")),
        ("a site's carrier killed", ("client_train", "north")),
        ("the server's carrier killed", ("server_train", "server")),
        ("the server's job process killed", ("runner_process", "server")),
    ],
)
def test_a_process_is_replaced_and_nothing_is_lost(what, words, tmp_path):
    with federation(tmp_path, federation=ROUNDS) as ours:
        expected = ours.in_process()
        began(ours)
        workers = {s: ours.found("fedit.federation.worker", s)[0].pid for s in ours.sites}
        done = len(ours.journal())
        ours.kill(*words)
        told(what, ours.wait_for_round(done))
        ours.finish()
        assert ours.adapter() == expected
        assert all(record.get("failures", []) == [] for record in ours.journal())
        for site, pid in workers.items():
            same = [p.pid for p in ours.found("fedit.federation.worker", site)] == [pid]
            assert same or words == ("fedit.federation.worker", site), f"{site} stays warm"


def test_the_server_killed_goes_on_with_the_sites_warm(tmp_path):
    with federation(tmp_path, federation=ROUNDS) as ours:
        expected = ours.in_process()
        began(ours)
        workers = [ours.found("fedit.federation.worker", s)[0].pid for s in ours.sites]
        for _ in range(2):
            done = len(ours.journal())
            ours.processes["server"].kill()
            ours.processes["server"].wait()
            ours.start("server")
            told("the server killed", ours.wait_for_round(done))
        ours.finish()
        assert ours.adapter() == expected
        assert [ours.found("fedit.federation.worker", s)[0].pid for s in ours.sites] == workers


def test_a_site_killed_rejoins_and_the_others_stay_warm(tmp_path):
    with federation(tmp_path, federation={"rounds": 14, "minimum": 2}) as ours:
        began(ours)
        others = [ours.found("fedit.federation.worker", s)[0].pid for s in ("east", "south")]
        ours.processes["north"].kill()
        ours.processes["north"].wait()
        ours.start("north")
        trained = ours.said("north").count("trained")
        took = ours.wait_for(lambda: ours.said("north").count("trained") > trained)
        print(f"\na site killed: it trains again after {took:.1f} s")
        ours.finish()
        assert [
            ours.found("fedit.federation.worker", s)[0].pid for s in ("east", "south")
        ] == others
        assert len(ours.journal()[-1]["clients"]) == 3


def test_a_site_that_comes_late_takes_part(tmp_path):
    engine = {"kind": "sites", "wait": 2}
    with federation(tmp_path, federation={"rounds": 3000, "minimum": 2}, engine=engine) as ours:
        for name in ("server", "east", "south"):
            ours.start(name)
        ours.wait_for_round(2)
        assert set(ours.journal()[-1]["clients"]) == {"east", "south"}
        ours.start("north")
        told("a late site", ours.wait_for(lambda: "north" in ours.journal()[-1]["clients"]))


def test_fewer_than_the_minimum_end_the_run_with_names_and_it_goes_on(tmp_path):
    engine = {"kind": "sites", "wait": 2, "patience": 45}
    with federation(tmp_path, federation={"rounds": 2, "minimum": 3}, engine=engine) as ours:
        for name in ("server", "east", "south"):
            ours.start(name)
        server = ours.processes["server"]
        ours.wait_for(lambda: server.poll() is not None)
        assert server.returncode == 1
        said = ours.said("server")
        assert "2 of 3 have enrolled" in said
        assert "absent: north" in said
        ours.start("north")
        ours.start("server")
        ours.finish()


def test_a_third_of_the_sites_away_each_round_for_fifty_rounds(tmp_path):
    """Their workers stand still beyond the deadline; each round counts with the rest."""
    chance, away = random.Random(3), 0
    plan = {"rounds": 50, "minimum": 1}
    engine = {"kind": "sites", "wait": 60, "deadline": 2}
    with federation(tmp_path, federation=plan, engine=engine) as ours:
        ours.start_all()
        ours.wait_for_round(0)
        server, seen = ours.processes["server"], 0
        while server.poll() is None:
            ours.wait_for(lambda n=seen: len(ours.journal()) > n or server.poll() is not None)
            seen = len(ours.journal())
            stopped = [site for site in ours.sites if chance.random() < 0.3][:2]
            away += len(stopped)
            for site in ours.sites:
                for worker in ours.found("fedit.federation.worker", site):
                    worker.suspend() if site in stopped else worker.resume()
        ours.finish()
        told = ours.journal()[1:]
        assert [record["round"] for record in told] == list(range(1, 51))
        missing = [failure["reason"] for record in told for failure in record["failures"]]
        assert 20 < len(missing) <= away
        assert set(missing) == {"deadline"}
        assert all(set(record["clients"]) for record in told)


def test_a_full_disk_at_a_site_is_its_own_and_passes(tmp_path):
    """Its optimizer's state cannot be written: others go on, and it does once there is room."""
    with federation(tmp_path, federation={"rounds": 3000, "minimum": 2}) as ours:
        began(ours)
        [worker] = ours.found("fedit.federation.worker", "north")
        worker.rlimit(psutil.RLIMIT_FSIZE, (ROOM, psutil.RLIM_INFINITY))
        ours.wait_for(lambda: ours.journal()[-1]["failures"])
        [failure] = ours.journal()[-1]["failures"]
        assert failure["client"] == "north"
        assert "File too large" in failure["detail"]
        assert set(ours.journal()[-1]["clients"]) == {"east", "south"}
        worker.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        told("room again", ours.wait_for(lambda: "north" in ours.journal()[-1]["clients"]))


def test_a_full_disk_at_the_server_loses_no_round(tmp_path):
    with federation(tmp_path, federation={"rounds": 12}) as ours:
        expected = ours.in_process()
        began(ours)
        server = psutil.Process(ours.processes["server"].pid)
        server.rlimit(psutil.RLIMIT_FSIZE, (ROOM // 2, psutil.RLIM_INFINITY))
        ours.wait_for(lambda: ours.processes["server"].poll() is not None)
        assert ours.processes["server"].returncode == 1
        assert "File too large" in ours.said("server")
        assert "Traceback" not in ours.said("server")
        ours.start("server")
        ours.finish()
        assert ours.adapter() == expected


def test_another_recipe_over_the_same_folder_is_refused(tmp_path):
    with federation(tmp_path, federation={"rounds": 2}) as ours:
        ours.start_all()
        ours.finish()
        ours.start("server", "local.lr=0.5")
        server = ours.processes["server"]
        ours.wait_for(lambda: server.poll() is not None)
        assert server.returncode == 2
        assert "local.lr: 0.01" in ours.said("server")


def test_another_base_at_one_site_is_refused_with_both_hashes(tmp_path):
    """East and north have copies of the base's folder; in north's one number is another."""
    finish(tiny(tmp_path / "made", federation={"rounds": 1}))
    base = tmp_path / "made" / "base"
    plan = {"model": {"base": str(base)}, "federation": {"rounds": 2, "minimum": 2}}
    with federation(tmp_path / "f", **plan) as ours:
        for site in ("east", "north"):
            shutil.copytree(base, tmp_path / site)
        weights = tmp_path / "north" / "model.safetensors"
        changed = load_file(weights)
        changed["model.norm.weight"][0] += 1
        save_file(changed, weights, {"format": "pt"})
        ours.start("server")
        ours.start("south")
        for site in ("east", "north"):
            ours.start(site, f"base={tmp_path / site}")
        ours.finish()
        said = ours.said("server")
        told = r"north: refused: .*model\.base .*/base: this site's has the hash \w{16}.*server's \w{16}"
        assert re.search(told, said)
        assert set(ours.journal()[-1]["clients"]) == {"east", "south"}


def test_a_policy_refuses_with_both_values_and_the_rest_go_on(tmp_path):
    with federation(tmp_path, federation={"rounds": 2, "minimum": 2}) as ours:
        policy = ours.kits / "north" / "policy.yaml"
        policy.write_text("steps: 1\n")
        ours.start_all()
        ours.finish()
        assert "steps: the recipe asks for 2, the site allows 1" in ours.said("server")
        assert set(ours.journal()[-1]["clients"]) == {"east", "south"}


def test_a_site_whose_carrier_breaks_every_job_is_left_out(tmp_path):
    """North's carrier allows no class, so it cannot begin its part of a job."""
    with federation(tmp_path, federation={"rounds": 6, "minimum": 2}) as ours:
        path = ours.kits / "north" / "carrier" / "local" / "resources.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"class_allow_list": []}))
        ours.start_all()
        waited = ours.wait_for_round(0)
        print(f"\na carrier that breaks jobs is left out after {waited:.1f} s")
        ours.finish()
        assert "north: its carrier breaks jobs: left out for 600 s" in ours.said("server")
        assert set(ours.journal()[-1]["clients"]) == {"east", "south"}


@pytest.mark.filterwarnings("default")  # NVFlare's client warns in threads that must not end
def test_a_carrier_that_runs_already_carries_the_same_bytes(tmp_path):
    """For those who have an NVFlare: our server and workers, their processes, the job handed in by hand."""
    with federation(tmp_path) as ours:
        expected = ours.in_process()
        for name in ("server", *ours.sites):
            ours.start(name, "--no-carrier")
        server = place_of(ours.kits / "server", DOOR)
        commands = {"server": (server_command(ours.kits / "server" / "carrier"), server)}
        for site in ours.sites:
            command = client_command(ours.kits / site / "carrier", site)
            commands[site] = (command, place_of(ours.kits / site, WORKER))
        for name, (command, place) in commands.items():
            with open(tmp_path / f"{name}-carrier.log", "ab") as log:
                theirs = dict(os.environ) | {SOCKET: str(place)}
                where = ours.kits / name / "carrier"
                found = subprocess.Popen(command, cwd=where, env=theirs, stdout=log, stderr=log)
                ours.processes[f"{name}-carrier"] = found
        control = Control(ours.kits / "server" / "driver")
        ours.wait_for(lambda: all_connected(control, ours.sites))
        control.submit(ours.kits / "server" / "job")
        ours.finish()
        control.close()
        ours.kill("nvflare.private")  # theirs, which nobody of ours ends
        assert ours.adapter() == expected


def all_connected(control: Control, sites) -> bool:
    try:
        return set(control.connected()) == set(sites)
    except FeditError:
        return False


@pytest.mark.parametrize(
    "which", ["another authority's", "another site's name", "operator's", "revoked"]
)
def test_a_strangers_certificate_brings_nobody_in(which, tmp_path):
    with federation(tmp_path, federation={"rounds": 3, "minimum": 2}) as ours:
        kit = ours.kits / "north" / "carrier" / "startup"
        if which == "another authority's":
            (tmp_path / "other").mkdir()
            with federation(tmp_path / "other") as other:
                stranger = other.kits / "north" / "carrier" / "startup"
                for name in ("client.crt", "client.key", "rootCA.pem"):
                    (kit / name).write_bytes((stranger / name).read_bytes())
        elif which == "another site's name":  # south's certificate, claiming to be north
            stranger = ours.kits / "south" / "carrier" / "startup"
            for name in ("client.crt", "client.key"):
                (kit / name).write_bytes((stranger / name).read_bytes())
        elif which == "revoked":  # the operator has made the kits anew without north
            make_kits(ours.network.model_copy(update={"sites": ["east", "south"]}), ours.kits)
        else:
            stranger = ours.kits / "operator" / "carrier" / "startup"
            for name in ("client.crt", "client.key"):
                (kit / name).write_bytes((stranger / name).read_bytes())
        ours.start_all()
        ours.finish()
        assert "north: enrolled" not in ours.said("server")
        assert "north: connected" not in ours.said("server")
        assert set(ours.journal()[-1]["clients"]) == {"east", "south"}


def test_bad_rows_and_an_expired_kit_are_refused_before_anything_starts(tmp_path):
    with federation(tmp_path) as ours:
        bad = tmp_path / "bad.jsonl"
        bad.write_text('{"instruction": "", "response": 1}\nno json\n')
        command = [*FEDIT, "join", str(ours.kits / "north"), "--data", str(bad)]
        found = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
        assert found.returncode == 2
        assert "bad.jsonl" in found.stderr
        card = ours.kits / "north" / "fedit.json"
        card.write_text(_expired(card.read_text()))
        found = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
        assert found.returncode == 2
        assert "has expired on 2020" in found.stderr


def _expired(text: str) -> str:
    return json.dumps(json.loads(text) | {"expires": "2020-01-01T00:00:00+00:00"})
