"""The sections of a page as values."""

import json

import pytest

from fedit.report import (
    answers,
    clients,
    comparison,
    costs,
    course,
    evenness,
    overview,
    personal,
    settings,
)
from fedit.report.blocks import Table
from fedit.report.runs import named, read_run
from fedit.report.summary import Answer, Cost, Summary
from tests.report import made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(made.run(tmp_path_factory.mktemp("runs") / "one", items=made.answers(16, 0.5)))


@pytest.fixture(scope="module")
def summary():
    return Summary.model_validate(made.summary(2, 400, ["client-00", "client-01"]))


def items(pattern: str) -> list[Answer]:
    """One item a letter: its label, in capitals where it is right."""
    return [
        Answer(
            where=f"dev:{place}",
            labels={"category": letter.lower()},
            correct=letter.isupper(),
            f1=0,
        )
        for place, letter in enumerate(pattern)
    ]


def places(found: list[Answer]) -> list[int]:
    return [int(item.where.removeprefix("dev:")) for item in found]


def test_of_each_category_the_first_right_and_the_first_wrong_are_chosen():
    assert places(answers.choose(items("bbBBaAa"), "category")) == [5, 4, 2, 0]
    assert places(answers.choose(items("aaaBBB"), "category")) == [0, 1, 3, 4]
    assert places(answers.choose(items("ab"), "other")) == [0, 1]


def test_only_questions_that_every_arm_answered_are_shown():
    found = answers.section({"one": items("aaa"), "two": items("a")}, "one", "category", "")
    [block] = found.blocks
    assert [card.where for card in block.cards] == ["dev:0"]
    assert [said.arm for said in block.cards[0].said] == ["one", "two"]
    assert answers.section({"one": []}, "one", "category", "") is None


def test_arms_have_their_scores_intervals_and_bars(summary):
    table = overview.arms_section(summary).blocks[0]
    fedit = next(row for row in table.rows if row[0].text == "fedit")
    assert (fedit[1].text, fedit[1].sub) == ("62.0", "58.0–66.0")
    assert fedit[1].bar == pytest.approx((0.58, 0.62, 0.66))
    assert [row[4].text for row in table.rows] == ["–", "4", "2", "2", "2"]


def test_best_and_worst_are_named(summary):
    [said] = overview.spread(summary)
    assert (
        "EM ranges from 19.0\u00a0% (client-00, seed 1) to 29.0\u00a0% (client-01, seed 0)" in said
    )


def test_groups_are_shaded_from_none_to_the_best(summary):
    table = overview.groups(summary, "em")
    shades = [cell.shade for row in table.rows for cell in row[1:]]
    assert max(shades) == 1
    assert min(shades) >= 0
    assert [row[0].text for row in table.rows][:2] == ["all", "brainstorming"]
    assert [row[0].text for row in table.rows][-1] == "language: es"
    assert all(cell.shade is None for row in overview.groups(summary, "loss").rows for cell in row)


def test_relative_scores_have_the_federated_arm_at_a_hundred(summary):
    chart = overview.relative(summary)
    at = chart.table.columns.index("fedit")
    assert {row[at].text for row in chart.table.rows} == {"100"}
    assert chart.table.rows[0][chart.table.columns.index("local")].text == "45"


def test_an_arm_that_scores_nothing_has_no_relative_score(summary):
    zero = {"em": made.estimate(0, 0), "f1": made.estimate(0, 0), "loss": None}
    tree = summary.model_dump()
    tree["arms"][2]["metrics"] = {"all": zero}
    assert overview.relative(Summary.model_validate(tree)) is None
    tree["arms"] = tree["arms"][:2]
    assert overview.relative(Summary.model_validate(tree)) is None


def test_arms_of_one_kind_share_no_colour(summary):
    assert len(set(overview.colours(summary.arms).values())) == len(summary.arms)


def test_own_categories_are_outlined(run):
    table = clients.by_category(
        {"client-00": run}, {"fedit": run}, {"client-00": ["open_qa"]}, "category"
    )
    marked = [[cell.mark for cell in row].count(True) for row in table.rows]
    assert marked == [1, 0]
    assert table.rows[0][table.columns.index("open_qa")].mark


def test_clients_have_a_row_a_seed(summary):
    table = clients.matrix(summary, "em")
    assert [row[0].text for row in table.rows] == [
        "client-00, seed 0",
        "client-01, seed 0",
        "client-00, seed 1",
        "client-01, seed 1",
    ]
    assert [cell.text for cell in table.rows[0][1:5]] == ["50.0", "8.0", "64.0", "61.0"]
    assert table.rows[0][0].sub == "brainstorming, classification · 210 rows"


def test_costs_are_added_up_over_the_runs_that_know_them(run):
    both = [Cost(arm="a", tokens=3), Cost(arm="a"), Cost(arm="b")]
    assert costs.total(both[:2], "tokens") == 3
    assert costs.total(both[2:], "tokens") is None
    found = costs.cost_of(run)
    assert found.train_seconds == pytest.approx(3.3)
    assert found.evaluate_seconds == pytest.approx(4 * 0.2 + 4.2)
    assert found.bytes_up == pytest.approx(9.3e6)
    assert costs.peak([run]) == 450


def test_the_mean_line_is_as_long_as_the_shortest():
    assert course.mean([[(0, 4), (1, 2)], [(0, 2)], []]) == [(0, 3)]
    assert course.mean([]) == []


def test_loss_is_set_against_what_was_sent_so_far(run):
    assert [sent for sent, _ in course.by_bytes(run)] == pytest.approx([0, 6.3, 12.6, 18.9])
    assert [round for round, _ in course.trained(run)] == [1, 2, 3]


def test_wilsons_interval_holds_the_share():
    low, high = comparison.wilson(7, 64)
    assert (low, high) == pytest.approx((0.0540, 0.2090), abs=1e-4)
    assert comparison.wilson(0, 8)[0] == pytest.approx(0, abs=1e-12)


def test_plans_are_compared_key_by_key(run, tmp_path):
    other = read_run(made.run(tmp_path / "two", local={"lr": 0.002}))
    table = settings.differing([run, other])
    assert [[cell.text for cell in row] for row in table.rows] == [["local.lr", "0.01", "0.002"]]
    assert settings.differing([run, run]) is None
    assert settings.differing([run]) is None


def test_equal_names_are_replaced_by_paths(run):
    assert [one.name for one in named([run, run])] == [str(run.path)] * 2
    assert [one.name for one in named([run])] == ["one"]


def test_how_even_groups_clients_and_languages_are(run):
    measured = {(one.name, one.over): one for one in evenness.of_runs([run], "category")}
    assert {over for _, over in measured} == {"groups by category", "groups by language", "clients"}
    em = measured["EM", "groups by category"].values
    table = evenness.blocks([measured["EM", "groups by category"]])[0]
    assert table.rows[0][0].sub == "over 8 groups by category"
    assert [cell.text for cell in table.rows[0][1:3]] == [
        f"{min(em.values()):.3f}",
        f"{max(em.values()) - min(em.values()):.3f}",
    ]
    loss = measured["Loss", "groups by category"].values
    worst = evenness.blocks([measured["Loss", "groups by category"]])[0].rows[0][1].text
    assert worst == f"{max(loss.values()):.3f}"


def test_fewer_than_two_groups_or_damaged_values_make_no_table():
    one = evenness.Measured("EM", "clients", {"a": 0.5, "b": None, "c": -1.0})
    assert evenness.blocks([one]) == []
    [table, _] = evenness.blocks([evenness.Measured("EM", "clients", {**one.values, "d": 1.0})])
    assert table.rows[0][0].sub == "over 2 clients, 1 without a finite value"


def test_arms_are_measured_over_each_label(summary):
    found = [(one.name, one.over, len(one.values)) for one in evenness.of_arms(summary)]
    assert ("fedit: EM", "groups by category", 8) in found
    assert ("fedit: F1", "groups by language", 2) in found


def clients_models(folder, **changes) -> None:
    score = {"rows": 4, "loss": 2.5, "perplexity": 12.2, "exact_match": 0.5, "token_f1": 0.75}
    usual = {**score, "loss": None, "exact_match": 0.25}
    pair = {"own_model": score, "global_model": usual}
    both = {"own_rows": pair, "test_rows": None}
    other = {"own_rows": {**pair, "own_model": {**score, "exact_match": 0.0}}, "test_rows": None}
    values = {
        "round": 3,
        "algorithm": "ditto",
        "tune": None,
        "limit": None,
        "personal": True,
        "clients": {"client-00": both, "client-01": other},
        "mean": both,
    }
    (folder / "personal.json").write_text(json.dumps({**values, **changes}))


def test_clients_own_models_stand_beside_the_global_one(tmp_path):
    folder = made.run(tmp_path / "one")
    clients_models(folder)
    view = read_run(folder)
    page = comparison.page([view], {}, None, "")
    blocks = next(section for section in page.sections if section.id == "results").blocks
    table = next(b for b in blocks if isinstance(b, Table) and b.caption.startswith("Clients' own"))
    assert table.groups == [("", 1), ("own rows", 3)]
    assert [row[0].text for row in table.rows] == ["mean of all", "client-00", "client-01"]
    assert [(cell.text, cell.sub) for cell in table.rows[1][1:]] == [
        ("50.0", "25.0"),
        ("75.0", "75.0"),
        ("2.50", "–"),
    ]
    even = next(b for b in blocks if isinstance(b, Table) and b.caption == "How even")
    row = next(row for row in even.rows if row[0].text == "EM of own models, own rows")
    assert [cell.text for cell in row[1:]] == ["0.000", "0.500", "0.062", "0.000", "0.500"]


def test_what_own_models_are_is_said(tmp_path):
    folder = made.run(tmp_path / "one")
    clients_models(folder, tune=5, limit=2, personal=False)
    said = personal.table(read_run(folder).personal, "one").caption
    assert said.startswith("one: Clients' own models")
    assert "tuned on each client's rows for 5 steps" in said
    assert "all own models are the global one, ditto gave clients no other" in said
    assert "the first 2 rows of each" in said


def test_damaged_personal_scores_are_left_out_and_noted(tmp_path):
    folder = made.run(tmp_path / "one")
    clients_models(folder, clients={"client-00": 3})
    view = read_run(folder)
    assert view.personal is None
    assert any(note.startswith("personal.json is left out") for note in view.notes)
