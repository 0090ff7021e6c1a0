"""A site's worker without processes: its own settings, its policy, and whom it believes."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("nvflare", reason="needs the extra federation")

from fedit.build import make_base
from fedit.config import Network, Site
from fedit.core.errors import InputError
from fedit.core.messages import Order
from fedit.core.strict import WireError
from fedit.data.sources import read_source
from fedit.engines.homes import Homes
from fedit.engines.inprocess import InProcess
from fedit.engines.ledger import Ledger
from fedit.engines.messages import pack_order
from fedit.engines.said import to_undo
from fedit.engines.sealed import ENROLMENT, FAILURE, INVITATION, Terms, read_label
from fedit.federation.kit import make_kits, open_kit
from fedit.federation.site import _from_anywhere, join
from fedit.federation.terms import recipe_hash, shared
from fedit.federation.worker import Desk, Hosted
from fedit.train.model import fingerprint
from tests.tiny import tiny
from tests.toy import tree

ROWS = [{"q": f"{n} and {n}?", "a": str(2 * n)} for n in range(12)]
OWN = Site(columns={"instruction": "q", "response": "a"}, bad_rows="drop", device="cpu", threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker") / "kits"
    make_kits(Network(host="127.0.0.1", port=8002, sites=["east", "north"]), folder)
    return folder


@pytest.fixture
def kits(made):
    yield made
    (made / "north" / "policy.yaml").write_text("{}\n")


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"q": "no answer"}]))
    return str(path)


def invited(kits, rows, tmp_path, site=OWN, desk=None, **changes):
    """What the worker of north says when it is invited, the kind of its answer, and all that was sent."""
    plan = tiny(
        tmp_path,
        **{"data": {"train": "elsewhere", "test": "microworld", "holdout": None}, **changes},
    )
    tree = shared(plan)
    terms = Terms("0" * 32, fingerprint(make_base(plan)[0].model), recipe_hash(tree))
    server = open_kit(kits / "server", "server")
    ledger = Ledger(terms, server.key(), {"north": server.key_of("north")})
    recipe = json.dumps(tree).encode()
    message = ledger.seal("north", 0, 0, recipe, kind=INVITATION)
    answer = (desk or Desk(open_kit(kits / "north", "site"), rows, site)).answer(message)
    kind = read_label(answer)[0].kind
    _, payload = ledger.admit(answer, "north", kind)
    return json.loads(bytes(payload)), kind


def test_a_site_reads_its_rows_its_own_way(kits, rows, tmp_path):
    said, kind = invited(kits, rows, tmp_path)
    assert (said["examples"], kind) == (12, ENROLMENT)
    said, kind = invited(kits, rows, tmp_path, OWN.model_copy(update={"columns": None}))
    assert (kind, "terminal" in said["detail"]) == (
        FAILURE,
        True,
    )  # and nothing of what the file holds


def test_bad_rows_are_refused_before_anything_starts_naming_what_the_site_can_set(kits, rows):
    with pytest.raises(InputError, match=r"1 bad rows .*\n.*\n.*or set bad_rows: drop"):
        next(join(kits / "north", rows, OWN.model_copy(update={"bad_rows": "refuse"})))
    with pytest.raises(InputError, match="base nowhere: is no folder"):
        next(join(kits / "north", rows, OWN.model_copy(update={"base": "nowhere"})))


def test_an_earlier_runs_memory_is_free_before_another_is_built(kits, rows, tmp_path, monkeypatch):
    desk, seen = Desk(open_kit(kits / "north", "site"), rows, OWN), []
    assert invited(kits, rows, tmp_path, desk=desk)[1] == ENROLMENT
    assert desk._hosted is not None

    def built(*given, **more):
        seen.append(desk._hosted)
        raise InputError("no more is needed")

    monkeypatch.setattr("fedit.federation.worker.build", built)
    assert invited(kits, rows, tmp_path, desk=desk)[1] == FAILURE
    assert seen == [None]


def test_columns_that_are_not_there_name_the_sites_own_key(kits, rows):
    wrong = OWN.model_copy(update={"columns": {"instruction": "question", "response": "a"}})
    with pytest.raises(InputError, match=r"^columns\.instruction: no row of .* 'question'"):
        next(join(kits / "north", rows, wrong))
    with pytest.raises(InputError, match=r"say what they hold with columns, such as"):
        next(join(kits / "north", rows, Site()))


@pytest.mark.parametrize("data", ["rows.jsonl", "*.jsonl"])
def test_rows_are_found_from_the_kits_folder_too(rows, data, tmp_path, monkeypatch):
    """There the worker runs."""
    monkeypatch.chdir(tmp_path)
    found, elsewhere = _from_anywhere(data), tmp_path / "kit"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert len(read_source(found, mapping=OWN.columns).examples) == len(ROWS)
    assert _from_anywhere("owner/name") == "owner/name"


@pytest.mark.parametrize(
    ("policy", "told"), [("{}", "MemoryError"), ("memory: 64", "needs more than 64 GiB")]
)
def test_too_little_memory_fails_the_round_and_the_worker_stays(kits, tmp_path, policy, told):
    (kits / "north" / "policy.yaml").write_text(policy)

    def answer(order, client, home):
        raise MemoryError

    start = tree(1)
    names = frozenset(start)
    order = Order(0, 0, 0, {"adapter": start}, {"north": 1.0}, names, names)
    job = SimpleNamespace(engine=InProcess(answer, (), Homes(tmp_path / "homes")))
    message = memoryview(to_undo(()) + bytes(pack_order(order, "north")))
    desk = Desk(open_kit(kits / "north", "site"), "rows.jsonl", OWN)
    kind, said = desk._trained(Hosted(None, None, job), message)
    assert (kind, told in json.loads(said)["detail"]) == (FAILURE, True)


def test_withheld_counts_refuse_a_recipe_that_weighs_by_them(kits, rows, tmp_path):
    (kits / "north" / "policy.yaml").write_text("counts: withheld\n")
    said, kind = invited(kits, rows, tmp_path)
    told = "counts: the recipe asks for federation.weights examples, the site allows withheld"
    assert (kind, told in said["detail"]) == (FAILURE, True)
    said, kind = invited(kits, rows, tmp_path, federation={"rounds": 3, "weights": "uniform"})
    assert (said["examples"], kind) == (None, ENROLMENT)


def test_keys_of_another_member_are_worth_nothing(kits, rows, tmp_path):
    """The server's public key in the kit is another's: what it signs is refused unread."""
    place = kits / "north" / "keys" / "server.pub"
    mine = place.read_bytes()
    place.write_bytes((kits / "east" / "keys" / "east.pub").read_bytes())
    try:
        with pytest.raises(WireError, match="signature"):
            invited(kits, rows, tmp_path)
    finally:
        place.write_bytes(mine)
