"""Some seconds of what `benchmarks/fuzz.py` does at length: no reader raises anything but its refusal."""

import importlib.util
from types import ModuleType

import pytest

from fedit.core.header import Reason
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = REPOSITORY / "benchmarks" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_mutation_brings_a_reader_down(fuzz):
    tally = fuzz.attack(15_000, seed=1)
    assert set(tally) == {"update", "order", "any block", "sealed update", "sealed order"}
    tried = {reason for counts in tally.values() for reason in counts}
    assert len(tried) >= 20
    assert tried - {"passed"} <= {str(reason) for reason in Reason}
    for counts in tally.values():
        assert 0 < counts["passed"] < counts.total() / 4


def test_the_fuzzer_finds_what_a_careless_reader_would_do(fuzz, monkeypatch):
    """The search must be able to fail: with one check taken out, something else is raised."""
    monkeypatch.setattr("fedit.core.header._counts", lambda value, most: True)
    with pytest.raises((TypeError, ValueError, AttributeError, RuntimeError, OverflowError)):
        fuzz.attack(15_000, seed=1)
