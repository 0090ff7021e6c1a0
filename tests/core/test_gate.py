import re
from dataclasses import replace

import pytest
import torch

from fedit.core.gate import expected, gate
from fedit.core.messages import ADAPTER, Failure, Order, Update
from tests.toy import tree

ADAPTER_NOW = tree(1)
A, B = sorted(ADAPTER_NOW)


def order(travels=(A, B), round=3, attempt=1) -> Order:
    names = frozenset(ADAPTER_NOW)
    return Order(round, attempt, 0, {ADAPTER: ADAPTER_NOW}, {"c0": 1.0}, names, frozenset(travels))


def update(payload=None, round=3, attempt=1) -> Update:
    return Update("c0", round, attempt, payload or {ADAPTER: tree(2)}, {"loss": 1.0})


def verdict(reply, asked=None, roles=()):
    asked = asked or order()
    return gate(reply, asked, expected(asked, roles))


def changed(name, tensor):
    return update({ADAPTER: {**tree(2), name: tensor}})


def test_a_good_update_passes_as_the_same_object():
    good = update()
    assert verdict(good) is good


def test_a_failure_passes_as_it_is():
    failure = Failure("c0", "dropout")
    assert verdict(failure) is failure


def test_further_roles_are_shaped_like_what_travels():
    good = update({ADAPTER: {A: tree(2)[A]}, "control": {A: tree(3)[A]}})
    assert verdict(good, order([A]), ("control",)) is good


with_value = torch.zeros(2, 5)
BAD = {
    "old round": (update(round=2), "stale", r"\(2, 1\).*\(3, 1\)"),
    "future round": (update(round=4), "stale", r"\(4, 1\)"),
    "old attempt": (update(attempt=0), "stale", r"\(3, 0\)"),
    "no role": (replace(update(), payload={}), "roles", r"sent \[\], expected \['adapter'\]"),
    "role too many": (update({ADAPTER: tree(2), "x": {}}), "roles", "'x'"),
    "other role": (update({"control": tree(2)}), "roles", "control"),
    "name missing": (update({ADAPTER: {A: tree(2)[A]}}), "names", f"1 missing, first {B}"),
    "empty": (update({ADAPTER: {}}), "names", f"2 missing, first {A}"),
    "name too many": (changed("zz", torch.zeros(1)), "names", "1 unexpected, first 'zz'"),
    "turned": (changed(A, tree(2)[A].t()), "shape", r"\(5, 2\), expected \(2, 5\)"),
    "flat": (changed(A, torch.zeros(10)), "shape", r"\(10,\)"),
    "broadcastable": (changed(A, torch.zeros(1, 5)), "shape", r"\(1, 5\)"),
    "fp64": (changed(A, with_value.double()), "dtype", "float64, expected torch.float32"),
    "integer": (changed(A, with_value.int()), "dtype", "int32"),
    "NaN": (changed(A, with_value.index_fill(1, torch.tensor(3), torch.nan)), "not finite", A),
    "infinity": (changed(A, with_value - torch.inf), "not finite", A),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_update_may_be(case):
    reply, reason, detail = BAD[case]
    found = verdict(reply)
    assert isinstance(found, Failure)
    assert (found.client, found.reason) == ("c0", reason)
    assert re.search(detail, found.detail)


def test_what_stays_at_home_must_not_be_sent():
    found = verdict(update(), order([A]))
    assert isinstance(found, Failure)
    assert found.reason == "names"
    assert B in found.detail


def test_a_bad_further_role_is_named():
    found = verdict(update({ADAPTER: tree(2), "control": {A: tree(2)[A]}}), roles=("control",))
    assert isinstance(found, Failure)
    assert found.detail.startswith("control: ")
