import pytest

from fedit.report.claims import headline
from fedit.report.summary import Summary
from tests.report import made


def said(**changes) -> tuple[str, str]:
    tree = made.summary(2, 400, ["client-00", "client-01"]) | changes
    title, lead = headline(Summary.model_validate(tree))
    return title, " ".join(lead).replace("\u00a0", " ")


def pair(over: str, em: tuple[float, float, float], f1: tuple[float, float, float]):
    ends = ("mean", "low", "high")
    return [
        {
            "arm": "fedit",
            "over": over,
            "em": dict(zip(ends, em, strict=True)),
            "f1": dict(zip(ends, f1, strict=True)),
        }
    ]


def test_the_headline_has_its_interval():
    title, _ = said()
    assert title.replace("\u00a0", " ") == (
        "Trained together, the model answers 62.0 % of 400 questions exactly right (58.0–66.0)"
    )


@pytest.mark.parametrize(
    ("em", "wanted"),
    [
        ((0.4, 0.35, 0.45), "That is 40.0 points more (35.0–45.0) than owners who train alone"),
        ((-0.4, -0.45, -0.35), "That is 40.0 points fewer (35.0–45.0) than owners who train alone"),
        ((0.02, -0.01, 0.05), "(24.0 %) is shown: −1.0 to 5.0 points."),
        ((0.02, 0.0, 0.05), "No difference from owners who train alone"),
    ],
)
def test_a_gain_is_claimed_only_where_its_interval_bears_it(em, wanted):
    _, lead = said(differences=pair("local", em, em))
    assert wanted in lead
    assert ("No difference from" in lead) == (em[1] <= 0 <= em[2])


def test_exact_match_and_f1_are_judged_apart():
    _, lead = said(differences=pair("local", (0.02, -0.01, 0.05), (0.1, 0.05, 0.15)), ratios=[])
    assert lead == (
        "No difference from owners who train alone (24.0 %) is shown: −1.0 to 5.0 points. "
        "By F1 it is 10.0 points more (5.0–15.0)."
    )


@pytest.mark.parametrize(("f1", "open_"), [((0.95, 0.9, 0.98), False), ((0.97, 0.93, 1.01), True)])
def test_a_ratio_says_when_no_difference_is_shown(f1, open_):
    _, lead = said(ratios=pair("central", f1, f1))
    assert (
        f"fedit reaches {100 * f1[0]:.0f} % ({100 * f1[1]:.0f}–{100 * f1[2]:.0f}) of the F1" in lead
    )
    assert ("no difference between the two is shown" in lead) == open_


def test_what_the_summary_lacks_is_not_claimed():
    title, lead = said(differences=[], ratios=[])
    assert "Trained together" in title
    assert lead == ""
    arms = made.summary(1, 4, ["client-00"])["arms"]
    title, lead = said(arms=arms[:1], seeds=[0])
    assert (title, lead) == ("made: 1 arms compared", "")
    _, lead = said(seeds=[0])
    assert "One seed" in lead
    nothing = {"mean": None, "low": None, "high": None}
    arms[2]["metrics"]["all"] = {"em": nothing, "f1": None, "loss": None}
    title, _ = said(arms=arms)
    assert "answers –" in title
