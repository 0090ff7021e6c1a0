"""A client costs what its training costs: neither the population nor an earlier start adds to it."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

import fedit
from fedit.runner import Run
from fedit.train import tokens
from tests.tiny import adapter_bytes, finish, tiny

SOURCE = str(Path(fedit.__file__).parent)


class Counted(Sequence):
    """A population that counts how often one of its clients is looked at."""

    def __init__(self, clients):
        self.clients, self.looks = clients, 0

    def __len__(self):
        return len(self.clients)

    def __getitem__(self, index):
        self.looks += 1
        return self.clients[index]


def calls_of_a_round(plan) -> Counter:
    """Calls that fedit's own code makes or receives in the second round, by function."""
    found: Counter = Counter()

    def count(frame, event, _):
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(SOURCE):
            found[Path(frame.f_code.co_filename).name, frame.f_code.co_name, event] += 1

    with Run(plan) as run:
        population = Counted(run.job.engine.population)
        object.__setattr__(run.job.engine, "population", population)  # it is frozen
        rounds = run.rounds()
        next(rounds), next(rounds)  # the start and the first round, in which things are made once
        population.looks = 0
        sys.setprofile(count)
        try:
            next(rounds)
        finally:
            sys.setprofile(None)
    found["population"] = population.looks
    return found


def test_a_round_costs_the_same_whatever_the_population(tmp_path):
    def calls(clients, cohort=3):
        return calls_of_a_round(
            tiny(
                tmp_path / f"{clients}-{cohort}",
                data={"holdout": None, "limit": 80},
                partition={"clients": clients},
                federation={"cohort": cohort},
                local={"steps": 1, "batch": 1},
            )
        )

    few = calls(10)
    assert few["trainer.py", "fit", "call"] == few["population"] == 3
    assert calls(80) == few
    assert calls(10, cohort=6).total() > 1.5 * few.total()


def test_a_resumed_run_tokenises_nothing_again(tmp_path, monkeypatch):
    whole = finish(tiny(tmp_path / "whole"))
    plan = tiny(tmp_path / "run")
    with Run(plan) as run:
        next(rounds := run.rounds()), next(rounds)

    def unusable(*_):
        raise AssertionError("rows were tokenised again")

    with monkeypatch.context() as patched:
        patched.setattr(tokens.SegmentTokenizer, "parts", unusable)
        assert finish(plan, resume=True) == whole
    stored = tmp_path / "run" / "tokens" / "train.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1])
    with monkeypatch.context() as patched:
        patched.setattr(tokens.SegmentTokenizer, "parts", unusable)
        with pytest.raises(AssertionError, match="tokenised again"):
            Run(plan, resume=True)
    assert finish(plan, resume=True) == whole
    assert adapter_bytes(tmp_path / "run") == whole
