import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit.core.errors import InputError
from fedit.data.partition import (
    Parts,
    at_least,
    by_key,
    client_ids,
    dirichlet,
    iid,
    shards,
    sizes,
    without_small,
)

some = settings(max_examples=40, deadline=None)
METHODS = ["iid", "dirichlet", "shards", "sizes", "key"]
columns = st.lists(st.sampled_from("abcdefgh"), min_size=30, max_size=200)


def part(method: str, labels: list[str], clients: int, alpha: float, seed: int) -> Parts:
    rng = np.random.default_rng(seed)
    return {
        "iid": lambda: iid(len(labels), clients, rng),
        "dirichlet": lambda: dirichlet(labels, clients, alpha, rng),
        "shards": lambda: shards(labels, clients, 2, rng),
        "sizes": lambda: sizes(len(labels), clients, alpha, rng),
        "key": lambda: by_key(labels),
    }[method]()


def held(parts: Parts) -> list[int]:
    return sorted(row for rows in parts.rows.values() for row in rows)


@pytest.mark.parametrize("method", METHODS)
@some
@given(labels=columns, clients=st.integers(1, 15), alpha=st.floats(1e-3, 1e3), seed=st.integers(0))
def test_every_row_goes_to_exactly_one_client_as_the_seed_says(
    method, labels, clients, alpha, seed
):
    parts = part(method, labels, clients, alpha, seed)
    assert held(parts) == list(range(len(labels)))
    assert all(rows == sorted(rows) for rows in parts.rows.values())
    assert len(parts.rows) == (len(set(labels)) if method == "key" else clients)
    assert list(parts.names) == list(parts.rows)
    assert parts == part(method, labels, clients, alpha, seed)


@pytest.mark.parametrize("method", ["iid", "dirichlet", "sizes"])
@some
@given(
    labels=columns,
    clients=st.integers(1, 15),
    minimum=st.integers(0, 20),
    alpha=st.floats(1e-3, 1e3),
)
def test_a_minimum_is_met_or_refused_at_once(method, labels, clients, minimum, alpha):
    parts = part(method, labels, clients, alpha, 0)
    if len(labels) < clients * minimum:
        with pytest.raises(InputError, match=f"minimum {minimum}: {clients} clients"):
            at_least(parts, minimum, np.random.default_rng(0))
        return
    met = at_least(parts, minimum, np.random.default_rng(0))
    assert held(met) == list(range(len(labels)))
    assert min(map(len, met.rows.values())) >= minimum
    missing = sum(max(0, minimum - len(rows)) for rows in parts.rows.values())
    assert met.moved == missing
    assert met == at_least(parts, minimum, np.random.default_rng(0))


def test_seeds_change_the_parts():
    for method in ("iid", "dirichlet", "shards", "sizes"):
        first, second = (part(method, list("abcd") * 50, 8, 0.5, seed) for seed in (0, 1))
        assert first != second


def test_iid_parts_are_equal_and_dirichlet_parts_follow_alpha():
    labels = list("abcdefgh") * 100
    assert {len(rows) for rows in part("iid", labels, 8, 1, 0).rows.values()} == {100}
    kinds = {
        alpha: np.mean(
            [
                len({labels[row] for row in rows})
                for rows in part("dirichlet", labels, 8, alpha, 0).rows.values()
            ]
        )
        for alpha in (0.01, 100)
    }
    assert kinds[0.01] < 3 < kinds[100] == 8


def test_two_shards_a_client_hold_two_categories_of_equal_size():
    labels = list("abcdefgh") * 60
    for rows in part("shards", labels, 16, 1, 0).rows.values():
        assert len(rows) == 30
        assert len({labels[row] for row in rows}) <= 2


@pytest.mark.parametrize("alpha", [1e-300, 1e-9, 1e300])
def test_extreme_alphas_still_place_every_row(alpha):
    for method in ("dirichlet", "sizes"):
        assert held(part(method, ["a", "b"] * 20, 5, alpha, 0)) == list(range(40))


@pytest.mark.parametrize(
    ("method", "clients", "alpha", "message"),
    [
        ("iid", 0, 1.0, "clients 0"),
        ("dirichlet", 3, 0.0, "alpha 0"),
        ("sizes", 3, float("inf"), "alpha inf"),
        ("dirichlet", 3, float("nan"), "alpha nan"),
        ("shards", 6, 1.0, "6 clients · 2 shards = 12"),
    ],
)
def test_impossible_partitions_are_refused(method, clients, alpha, message):
    with pytest.raises(InputError, match=message):
        part(method, list("abcdefghij"), clients, alpha, 0)


def test_clients_are_numbered_to_the_width_of_their_count():
    assert list(part("iid", ["a"] * 3, 2, 1, 0).rows) == ["client-00", "client-01"]
    assert list(part("iid", ["a"] * 3, 101, 1, 0).rows)[-1] == "client-100"


def test_small_keys_are_refused_by_name_or_dropped():
    parts = by_key(["big"] * 5 + ["duorc_SelfRC"] * 2)
    with pytest.raises(InputError, match=r"minimum 3: too few rows at 1 of 2.*duorc_SelfRC \(2\)"):
        without_small(parts, 3, "refuse")
    left = without_small(parts, 3, "drop")
    assert left.rows == {"big": [0, 1, 2, 3, 4]}
    assert left.names == {"big": "big"}
    assert left.dropped == ["duorc_SelfRC"]
    assert without_small(parts, 2, "refuse") == parts
    with pytest.raises(InputError, match="too few rows at 2 of 2"):
        without_small(parts, 6, "drop")


def test_keys_become_readable_ids():
    ids = client_ids(["duorc_SelfRC", "École / Genève", "A b", "a-b", "a-b-2", "中文", "中文 x"])
    assert ids["duorc_SelfRC"] == "duorc_selfrc"
    assert ids["École / Genève"] == "ecole-geneve"
    assert (ids["A b"], ids["a-b"], ids["a-b-2"]) == ("a-b", "a-b-2", "a-b-2-2")
    assert re.fullmatch("[0-9a-f]{8}", ids["中文"])
    assert re.fullmatch("x-[0-9a-f]{8}", ids["中文 x"])


@some
@given(st.lists(st.text(), unique=True, max_size=30))
def test_any_keys_have_distinct_ids_that_fit_the_pattern(keys):
    ids = client_ids(keys)
    assert len(set(ids.values())) == len(keys)
    assert all(re.fullmatch("[a-z0-9][a-z0-9_-]{0,63}", client) for client in ids.values())
    assert ids == client_ids(keys[::-1])
