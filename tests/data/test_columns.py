from collections import Counter

import pytest

from fedit.core.errors import InputError
from fedit.core.examples import Example, Turn
from fedit.data.columns import labels
from fedit.data.microworld import microworld


def examples(*texts: str) -> list[Example]:
    return [
        Example((Turn("user", text), Turn("assistant", "1")), {"source": "s"}, f"f:{line}")
        for line, text in enumerate(texts, start=1)
    ]


def test_a_column_gives_its_labels():
    assert labels(examples("a", "b"), "source") == ["s", "s"]


def test_a_column_that_a_row_lacks_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"'sorce': f:1 .*did you mean 'source'.*@length"):
        labels(examples("a"), "sorce")
    with pytest.raises(InputError, match=r"'@lenght': .*did you mean '@length'"):
        labels(examples("a"), "@lenght")
    with pytest.raises(InputError, match="bins 0"):
        labels(examples("a"), "@length", bins=0)


def test_length_bins_are_quantiles_named_by_their_range():
    found = labels(examples(*("x" * n for n in range(1, 101))), "@length", bins=4)
    assert Counter(found) == {
        "length-0 (3-27)": 25, "length-1 (28-52)": 25,
        "length-2 (53-77)": 25, "length-3 (78-102)": 25,
    }  # fmt: skip
    assert labels(examples("a", "b", "c"), "@length", bins=8) == ["length-0 (3-3)"] * 3


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("plain words", "latin"),
        ("Что это такое?", "cyrillic"),
        ("识别并解释给定列表中的理论 LLM", "han"),
        ("東京は日本の首都です。人口が多い都市", "kana"),
        ("안녕하세요", "hangul"),
        ("مرحبا بالعالم", "arabic"),
        ("ＡＢＣ", "latin"),
        ("2 + 2 = 4!", "none"),
    ],
)
def test_script_is_that_of_most_letters(text, script):
    assert labels(examples(text), "@script") == [script]


def test_similarity_puts_like_texts_together_and_follows_the_seed():
    cats = [f"the cat sat on the mat and purred {n}" for n in range(20)]
    sums = [f"compute the integral of x squared plus {n}" for n in range(20)]
    found = labels(examples(*cats, *sums), "@similarity", bins=2, seed=0)
    assert len(set(found[:20])) == len(set(found[20:])) == 1
    assert found[0] != found[-1]
    assert labels(microworld(), "@similarity", seed=5) == labels(
        microworld(), "@similarity", seed=5
    )


def test_similarity_needs_no_more_rows_than_bins():
    assert len(labels(examples("a b", "c d"), "@similarity", bins=8)) == 2


@pytest.mark.parametrize("column", ["source", "@length", "@script", "@similarity"])
def test_no_examples_have_no_labels(column):
    assert labels([], column) == []
