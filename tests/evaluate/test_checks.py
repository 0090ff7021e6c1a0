"""Answers that are right in other words than the reference's."""

import pytest

from fedit.core.errors import InputError
from fedit.evaluate.checks import check_rule, correct, items

ANIMALS = "any 3 of dog | cat | owl | hen"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("dog, cat, owl", True),
        ("Owl; hen and the dog.", True),
        ("hen\ndog\ncat", True),
        ("gato, dog y cat", False),
        ("dog, cat y owl", True),
        ("dog, cat, and owl", True),
        ("dog, cat", False),
        ("dog, cat, owl, hen", False),
        ("dog, dog, cat", False),
        ("dog, cat, owl, dog", False),
        ("dog cat owl", False),
        ("", False),
    ],
)
def test_any_of_those_listed(answer, right):
    assert correct(answer, "dog, cat, owl", ANIMALS) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("red, blue", True),
        ("blue and red", True),
        ("Blue; red.", True),
        ("red", False),
        ("red, blue, green", False),
        ("red, red, blue", False),
        ("", False),
    ],
)
def test_a_set_in_any_order(answer, right):
    assert correct(answer, "red, blue", "set") is right


def test_without_a_rule_it_is_exact_match():
    assert correct("The cat.", "cat")
    assert not correct("red, blue", "blue, red")


def test_items_of_a_list_in_words():
    assert items("Sand, and the Ferry") == ["sand", "ferry"]
    assert items("uno, dos y tres") == ["uno", "dos", "tres"]
    assert items("andes; yak") == ["andes", "yak"]
    assert items(" , ;\n") == []


@pytest.mark.parametrize("rule", ["set", ANIMALS, "any 1 of a", "any 2 of a | b |"])
def test_rules_that_are_known(rule):
    check_rule(rule, "rows.jsonl:3")


@pytest.mark.parametrize(
    "rule",
    ["sets", "any of a | b", "any 3 of a | b", "any 2 of a | A", "any 0 of a", "any 2 of", " "],
)
def test_rules_that_nobody_knows_are_refused_by_row_and_value(rule):
    with pytest.raises(InputError) as error:
        check_rule(rule, "rows.jsonl:3")
    assert f"rows.jsonl:3: check {rule!r} is no rule" in str(error.value)
