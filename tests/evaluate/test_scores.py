"""Exact match and token F1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedit.evaluate.scores import exact_match, normalise, token_f1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel\tTower!", "eiffel tower"),
        ("an apple, a day", "apple day"),
        ("STRASSE straße", "strasse strasse"),
        ("ＡＢＣ １２", "abc 12"),
        ("«Élan» – $5…", "élan 5"),
        ("A", "a"),
        ("The.", "the"),
        ("+", "+"),
        (" \n", ""),
        ("theatre another", "theatre another"),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


def test_f1_is_the_harmonic_mean():
    # prediction: 4 tokens, reference: 3, shared: 2 → precision 1/2, recall 2/3
    assert token_f1("big red red car", "red red bus") == pytest.approx(4 / 7)
    assert token_f1("no", "yes") == 0
    assert token_f1("red red", "red") == pytest.approx(2 / 3)


def test_han_and_kana_count_one_by_one():
    assert token_f1("東京タワー", "東京") == pytest.approx(4 / 7)
    assert token_f1("서울 시", "서울") == pytest.approx(2 / 3)
    assert exact_match("北 京。", "北京")


@pytest.mark.parametrize(
    ("one", "two", "f1", "same"),
    [("", "", 1, True), ("", "x", 0, False), ("x", "", 0, False), ("!", "", 0, False)],
)
def test_empty_texts(one, two, f1, same):
    assert token_f1(one, two) == f1
    assert exact_match(one, two) is same


def test_letters_and_signs_as_answers_differ():
    assert not exact_match("A", "The")
    assert not exact_match("+", "-")
    assert exact_match("(A)", "a")


@given(st.text(), st.text())
def test_laws(one, two):
    f1 = token_f1(one, two)
    assert 0 <= f1 <= 1
    assert f1 == token_f1(two, one)
    assert exact_match(one, one)
    assert not exact_match(one, two) or f1 == 1
    assert normalise(normalise(one)) == normalise(one)
