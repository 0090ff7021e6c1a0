import json

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from fedit.core.errors import InputError
from fedit.data.skew import skew

DISJOINT = {"one": [0, 1], "two": [2, 3]}


def test_equal_clients_have_no_skew():
    found = skew({"one": [0, 1], "two": [2, 3]}, ["a", "b", "a", "b"])
    assert found.max.jensen_shannon == pytest.approx(0, abs=1e-12)
    assert found.max.hellinger == pytest.approx(0, abs=1e-7)
    assert found.max.earth_mover == 0
    assert found.mean.effective_categories == pytest.approx(2)
    assert (found.size_gini, found.categories) == (0, 2)


def test_disjoint_clients_have_the_values_worked_by_hand():
    found = skew(DISJOINT, ["a", "a", "b", "b"]).clients["one"]  # p = (1, 0), q = (1/2, 1/2)
    assert found.earth_mover == pytest.approx(0.5)
    assert found.hellinger == pytest.approx(np.sqrt(1 - np.sqrt(0.5)))
    assert found.jensen_shannon == pytest.approx(1.5 - 0.75 * np.log2(3))
    assert found.effective_categories == pytest.approx(1)


def test_jensen_shannon_agrees_with_scipy():
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abcde"), 200).tolist()
    rows = {"one": list(range(20)), "two": list(range(20, 200))}
    counts = [[[labels[r] for r in held].count(x) for x in "abcde"] for held in rows.values()]
    whole = np.sum(counts, axis=0)
    for own, client in zip(counts, skew(rows, labels).clients.values(), strict=True):
        assert client.jensen_shannon == pytest.approx(jensenshannon(own, whole, 2) ** 2)


def test_gini_is_that_of_the_sizes():
    assert skew({"one": [0], "two": [1, 2, 3]}, ["a"] * 4).size_gini == pytest.approx(0.25)
    assert skew({"one": [], "two": [0, 1]}, ["a"] * 2).size_gini == pytest.approx(0.5)


def test_clients_without_rows_have_no_distances():
    assert list(skew({"one": [], "two": [0]}, ["a"]).clients) == ["two"]
    with pytest.raises(InputError, match="no client has a row"):
        skew({"one": []}, ["a"])


def test_rows_that_no_client_holds_do_not_count():
    assert skew({"one": [0, 1]}, ["a", "a", "dropped"]).categories == 1


def test_skew_is_ready_for_json_and_for_a_caption():
    found = skew(DISJOINT, ["a", "a", "b", "b"])
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["clients"]["two"]["earth_mover"] == 0.5
    assert plain["mean"].keys() == plain["max"].keys()
    assert "earth mover 0.50" in str(found)
