from collections import Counter

import pytest

from fedit.core.errors import InputError
from fedit.core.examples import Example, Turn
from fedit.data.microworld import microworld
from fedit.data.splits import drop_duplicates, holdout


def example(text: str, context: str = "", where: str = "") -> Example:
    return Example((Turn("user", text, context), Turn("assistant", "a")), {"file": where}, where)


def test_duplicates_go_within_and_across_train_and_test():
    train = [example("x", where="1"), example("y"), example("x", where="3"), example("z")]
    test = [example("z"), example("t"), example("t")]
    left = drop_duplicates(train, test)
    assert [e.turns[0].text for e in left.train] == ["x", "y"]
    assert left.train[0].where == "1"
    assert [e.turns[0].text for e in left.test] == ["z", "t"]
    assert (left.repeated_in_train, left.repeated_in_test, left.train_in_test) == (1, 1, 1)


def test_rows_that_differ_in_their_context_are_no_duplicates():
    left = drop_duplicates([example("x", "one"), example("x", "two")], [])
    assert len(left.train) == 2


def test_holdout_takes_ten_rows_of_each_of_eight_categories_as_the_paper():
    train, test = holdout(microworld("test"), 10, by="category", seed=3)
    assert set(Counter(e.labels["category"] for e in test).values()) == {10}
    assert len(train) == 336
    assert sorted(e.where for e in train + test) == sorted(e.where for e in microworld("test"))


def test_holdout_follows_the_seed():
    first, again, other = (holdout(microworld("test"), 0.1, seed=seed)[1] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("share", "count"), [(0.29, 29), (0.1, 10), (0.005, 1), (0.99, 99)])
def test_a_share_is_rounded_exactly(share, count):
    rows = [example(str(number)) for number in range(100)]
    assert len(holdout(rows, share)[1]) == count


def test_a_share_that_leaves_nothing_to_train_is_refused():
    with pytest.raises(InputError, match="nothing of 2 rows"):
        holdout([example("x"), example("y")], 0.9)


def test_a_share_is_spread_over_the_labels():
    rows = [example(str(number), where="ab"[number >= 60]) for number in range(90)]
    test = holdout(rows, 0.1, by="file")[1]
    assert Counter(e.labels["file"] for e in test) == {"a": 6, "b": 3}


@pytest.mark.parametrize("size", [0, -1, True, 1.0, 1.5, float("nan"), 0.0])
def test_a_size_that_means_nothing_is_refused(size):
    with pytest.raises(InputError, match="held-out size"):
        holdout(microworld("test"), size)


def test_a_group_too_small_is_named():
    with pytest.raises(InputError, match="held-out size 52: 'brainstorming' has 52 rows"):
        holdout(microworld("test"), 52, by="category")
