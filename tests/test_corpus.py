"""Which clients take part, and which rows are held out for every seed."""

import json

import pytest

from fedit import InputError
from fedit.corpus import divide, read_data, taking_part
from fedit.runner import Run
from tests.tiny import journal, tiny


def test_only_those_named_take_part_with_the_rows_they_always_have(tmp_path):
    everyone = tiny(tmp_path / "all")
    parts = divide(everyone, read_data(everyone).train)
    two = ["client-01", "client-03"]
    with Run(tiny(tmp_path / "two", federation={"only": two, "cohort": 2})) as run:
        assert run.job.parts.rows == {client: parts.rows[client] for client in two}
        assert [client.id for client in run.job.engine.clients()] == two
        for _ in run.rounds():
            pass
    for record in journal(tmp_path / "two")[1:]:
        assert record["cohort"] == two
    known = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert known["clients"] == {client: len(parts.rows[client]) for client in two}


def test_a_client_nobody_knows_is_refused_with_the_nearest(tmp_path):
    plan = tiny(tmp_path)
    parts = divide(plan, read_data(plan).train)
    with pytest.raises(InputError) as error:
        taking_part(parts, ["client-1"])
    said = str(error.value)
    assert "federation.only: no client is called 'client-1' (did you mean 'client-" in said
    assert "there are client-00, client-01, client-02, client-03" in said
    assert taking_part(parts, None) is parts


def test_a_cohort_larger_than_those_who_take_part_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cohort 2 is more than clients in federation.only 1"):
        tiny(tmp_path, federation={"only": ["client-00"], "cohort": 2})
    with pytest.raises(InputError, match=r"federation.only"):
        tiny(tmp_path, federation={"only": []})


def test_held_out_rows_follow_the_run_or_a_seed_of_their_own(tmp_path):
    def held(run, **holdout):
        plan = tiny(tmp_path, seed=run, data={"holdout": {"size": 8, **holdout}})
        return [example.where for example in read_data(plan).test]

    assert held(0) != held(1)
    assert held(0, seed=1) == held(1) == held(2, seed=1)
