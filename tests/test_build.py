"""What building a plan's parts says."""

import pytest

from fedit.build import build
from tests.tiny import tiny

IGNORED = {
    "qfedavg": "clients by a power of their loss alone",
    "feddyn": "all clients of a cohort alike",
    "afl": "clients by its own mixture",
}


@pytest.mark.parametrize("name", [*IGNORED, "fedavg", "term"])
@pytest.mark.parametrize("sampler", ["uniform", "multinomial"])
def test_methods_that_ignore_the_plans_weights_say_so(name, sampler, tmp_path):
    federation = {"unbiased": True, "sampler": sampler}
    plan = tiny(tmp_path, algorithm=name, federation=federation)
    found = [
        note for note in build(plan, tmp_path, blank=True).notes if "federation.weights" in note
    ]
    assert len(found) == (name in IGNORED)
    for note in found:
        assert note.startswith(f"algorithm {name} weighs {IGNORED[name]}")
        assert "unbiased change nothing" in note
        assert ("drawn twice for a round counts once" in note) == (sampler == "multinomial")
