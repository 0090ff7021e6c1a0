"""Kits made again: new sites, revoked ones, and what may not change."""

import json
import time
from itertools import pairwise

import pytest

pytest.importorskip("nvflare", reason="needs the extra federation")

from pydantic import ValidationError

from fedit.config import Network
from fedit.core.errors import InputError
from fedit.engines.nvflare.kits import settle_server
from fedit.federation.children import Child
from fedit.federation.kit import make_kits, open_kit


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation") / "kits"
    make_kits(network("east", "north"), folder)
    return folder


def network(*sites, **changes):
    return Network(**{"host": "127.0.0.1", "port": 8002, "sites": list(sites), **changes})


def test_a_site_that_is_taken_out_is_revoked_and_may_come_back(kits):
    assert make_kits(network("east", "south"), kits).keys() == {"south"}
    server = open_kit(kits / "server", "server")
    assert (list(server.sites), list(server.revoked)) == (["east", "south"], ["north"])
    settle_server(server.carrier, server.revoked)
    told = json.loads((server.carrier / "disabled_clients.json").read_text())
    assert told == {"disabled_clients": ["north"]}
    make_kits(network("east", "north", "south"), kits)
    server = open_kit(kits / "server", "server")
    assert (len(server.sites), list(server.revoked)) == (3, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "other"}, "name: .* of federation, not of other"),
        ({"port": 8003}, "host and port"),
    ],
)
def test_kits_of_another_federation_are_not_mixed(change, said, kits):
    before = sorted(kits.rglob("*"))
    with pytest.raises(InputError, match=said):
        make_kits(network("east", "west", **change), kits)
    assert sorted(kits.rglob("*")) == before


@pytest.mark.parametrize("name", ["server", "driver", "operator", "authority"])
def test_reserved_names_are_no_sites(name):
    with pytest.raises(ValidationError, match=f"{name}: stands there twice or is a reserved name"):
        network(name)


def test_a_log_stays_small_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("fedit.federation.children._LOG", 100)
    log = tmp_path / "log"
    child = Child(["sh", "-c", "while :; do echo 0123456789; sleep 0.01; done"], tmp_path, log, {})
    try:
        seen = [0]
        while not any(after < before for before, after in pairwise(seen)):
            child.watch()
            seen.append(log.stat().st_size)
            time.sleep(0.01)
        assert max(seen) > 50
        assert child.starts == 1
    finally:
        child.end()
