import re

import pytest

from fedit.report.charts import CLIENTS_DRAWN, Dots, Series, curves, dots, stacks
from fedit.report.holdings import ranked, section

HOSTILE = "</text><script>alert(1)</script> $x^{ \x1b _"
LINE = [(0.0, 5.0), (1.0, 3.0), (2.0, 2.0)]


def drawings(name: str) -> list[str]:
    one = Series(name, 0, LINE, [LINE, LINE], LINE[1:])
    level = Series(f"_{name}", 1, LINE[-1:], level=True)
    return [
        curves([one, level], "round", "loss", key="a", label=name),
        dots([Dots(name, {name: 40.0, "b": 100.0})], {name: 0, "b": 1}, "F1", key="b", label=name),
        stacks({name: {name: 3, "b": 2}}, {name: 0, "b": 1}, key="c", label=name),
    ]


@pytest.mark.parametrize("place", range(3))
def test_a_drawing_is_themed_named_and_always_the_same(place):
    drawn = drawings("fedit")[place]
    assert drawn == drawings("fedit")[place]
    assert drawn.startswith('<svg role="img" aria-label="fedit"')
    assert drawn.endswith("</svg>")
    assert "<title>fedit</title>" in drawn
    assert "var(--c0)" in drawn
    assert "currentColor" in drawn
    assert not re.search(r"#0[12]0[12]|<style|<metadata|<!--|<\?xml|<!DOCTYPE", drawn)
    key = "abc"[place]
    assert all(name.startswith(f"{key}-") for name in re.findall(r'\bid="([^"]*)"', drawn))
    used = set(re.findall(r'(?:url\(#|href="#)([^")]*)', drawn))
    assert used <= set(re.findall(r'\bid="([^"]*)"', drawn))


@pytest.mark.parametrize("place", range(3))
def test_names_are_text_whatever_they_hold(place):
    drawn = drawings(HOSTILE)[place]
    assert "<script" not in drawn
    assert "&lt;/text&gt;&lt;script&gt;" in drawn
    assert "\x1b" not in drawn


def test_names_that_begin_with_an_underscore_stand_in_the_legend():
    assert ">_a</text>" in curves([Series("_a", 0, LINE)], "x", "y", key="k", label="l")


def test_many_clients_are_drawn_in_part_and_tabled_whole():
    held = {f"client-{n:03d}": {"a": n} for n in range(CLIENTS_DRAWN + 5)}
    found = section(held, "category", "")
    assert found is not None
    [chart] = found.blocks
    assert f"The first {CLIENTS_DRAWN} are drawn; the table has all." in chart.caption
    assert len(chart.table.rows) == len(held)
    assert "client-064" not in chart.svg


def test_rare_labels_are_put_together():
    counts, inks = ranked({"one": {f"label-{n:02d}": 20 - n for n in range(12)}, "two": {}})
    assert list(inks)[-2:] == ["label-08", "other (3)"]
    assert counts["one"]["other (3)"] == 11 + 10 + 9
    assert counts["two"]["other (3)"] == 0
    assert section({}, None, "") is None
    assert section({"one": {}}, None, "") is None
