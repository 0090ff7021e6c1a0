"""Items: what they hold, how they are summed, and that they survive the disk."""

import json
import math

import pytest

from fedit.core.errors import InputError
from fedit.core.examples import Example, Turn
from fedit.evaluate.items import check_rules, loss_of, make_items
from fedit.evaluate.loss import Loss
from fedit.evaluate.stored import Scores, read_scores, write_scores


def example(answer: str, **labels: str) -> Example:
    turns = (Turn("user", "q", "c"), Turn("assistant", answer))
    return Example(turns, labels, "rows.jsonl:1")


EXAMPLES = [example("red, blue", check="set"), example("red, blue", category="x"), example("cat")]
ITEMS = make_items(
    EXAMPLES, ["blue, red", "blue, red", "a dog"], [Loss(6.0, 3), Loss(math.inf, 2), Loss(1, 1)]
)


def test_a_row_is_right_by_its_own_rule():
    assert [item.correct for item in ITEMS] == [True, False, False]
    assert [item.f1 for item in ITEMS[:2]] == [1, 1]
    assert (ITEMS[1].labels, ITEMS[1].question, ITEMS[1].context) == ({"category": "x"}, "q", "c")


def test_losses_are_summed_and_one_that_is_not_finite_shows():
    assert [item.loss for item in ITEMS] == [6.0, None, 1]
    assert loss_of([ITEMS[0], ITEMS[2]]).mean == 7 / 4
    assert math.isnan(loss_of(ITEMS).mean)


def test_an_unknown_rule_is_refused_by_its_row():
    with pytest.raises(InputError, match=r"rows.jsonl:1: check 'no' is no rule"):
        check_rules([example("a", check="no")])
    check_rules(EXAMPLES)


def test_scores_survive_the_disk(tmp_path):
    assert read_scores(tmp_path) is None
    write_scores(tmp_path, Scores(3, 1.5, ITEMS))
    assert read_scores(tmp_path) == Scores(3, 1.5, ITEMS)
    values = json.loads((tmp_path / "scores.json").read_text())
    assert set(values) == {"round", "seconds", "items"}
    assert values["items"][1]["loss"] is None


@pytest.mark.parametrize(
    "text", ["", "{}", '{"round": 1, "seconds": 1, "items": [{"x": 1}]}', "[]"]
)
def test_a_damaged_file_is_refused_with_what_to_do(text, tmp_path):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(InputError, match=r"damaged .*delete it"):
        read_scores(tmp_path)
