import pytest

from fedit.report import words


def test_every_character_that_steers_is_shown_as_a_sign():
    steering = "\x00\x07\x1b\x7f\x85\u202e\u2066\u2028\ufeff\ud800\ue000"
    shown = words.visible(steering)
    assert shown == "".join(f"⟨U+{ord(c):04X}⟩" for c in steering)
    shown.encode()


@pytest.mark.parametrize(
    "text", ["a\n\nb\tc", "¿Qué?", "中文", "שלום", "👩\u200d⚕️", "$x^{ & <b> {{"]
)
def test_ordinary_text_stays_as_it_is(text):
    assert words.visible(text) == text


def test_long_text_is_cut_and_says_by_how_much():
    assert words.visible("a" * 1500, 1200) == "a" * 1200 + " … (300 more characters)"
    assert words.visible("a\r\nb") == "a\nb"


def test_a_name_is_one_line():
    assert words.line(" a\n b ") == "a b"
    assert words.line("") == "(no name)"


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (words.percent(0.6214), "62.1"),
        (words.percent(float("nan")), "–"),
        (words.signed(0.5, 0), "50\u00a0%"),
        (words.interval(0.58, 0.663), "58.0–66.3"),
        (words.interval(-0.02, 0.044), "−2.0 to 4.4"),
        (words.interval(None, 0.1), ""),
        (words.decimal(None), "–"),
        (words.decimal(float("inf")), "–"),
        (words.size(999), "999 B"),
        (words.size(31_500_000), "31.5 MB"),
        (words.size(2e15), "2,000.0 TB"),
        (words.size(None), "–"),
        (words.duration(4.25), "4.2 s"),
        (words.duration(89), "89 s"),
        (words.duration(812), "14 min"),
        (words.duration(9000), "2.5 h"),
        (words.duration(None), "–"),
    ],
)
def test_numbers_are_shown_in_units_a_person_reads(shown, wanted):
    assert shown == wanted
