"""What building a plan's parts says, and hands to workers."""

import pytest

from fedit.algorithms.fedavg import fedavg
from fedit.build import build, hosting, job
from fedit.core.errors import InputError
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


@pytest.fixture
def entry(monkeypatch):
    """Lets a function be the installed method `own`."""

    def put(factory):
        entry = type("Entry", (), {"name": "own", "load": lambda self: factory})()
        monkeypatch.setattr("fedit.build.algorithms.entry_points", lambda group: [entry])
        return {"name": "external", "entry": "own"}

    return put


def test_a_worker_makes_an_outside_method_from_the_population_too(entry, tmp_path, monkeypatch):
    seen, opened = [], []

    def factory(population):
        seen.append({client.id: (client.examples, client.tokens) for client in population})
        assert 1 / len(population)
        return fedavg()

    def keep(one, *parts, **how):
        opened.append(one)
        return hosting.make_engine(one, *parts, **how)

    monkeypatch.setattr(job, "make_engine", keep)
    made = build(tiny(tmp_path, algorithm=entry(factory)), tmp_path)
    opened[0]()  # what a worker does
    here, there = seen
    assert here == there
    assert list(there) == [client.id for client in made.engine.clients()]
    assert all(count > 0 for counts in there.values() for count in counts)


@pytest.mark.parametrize("fault", [ZeroDivisionError, KeyError, RuntimeError, InputError])
def test_whatever_an_outside_method_raises_names_it(fault, entry, tmp_path):
    def factory(population):
        raise fault("some cause")

    plan = tiny(tmp_path, algorithm=entry(factory))
    with pytest.raises(InputError, match=rf"algorithm\.entry own: .*{fault.__name__}.*some cause"):
        build(plan, tmp_path, blank=True)
