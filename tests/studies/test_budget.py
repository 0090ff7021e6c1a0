"""Equal budgets of samples."""

import pytest

from fedit.config import Federation, Local
from fedit.core.messages import Client
from fedit.core.seeds import generator
from fedit.selection import samplers
from fedit.studies.budget import expected_samples, samples_in, steps_for
from tests.tiny import tiny


def plan(tmp_path, local, **federation):
    return tiny(tmp_path).model_copy(
        update={"local": Local(**local), "federation": Federation(**federation)}
    )


@pytest.mark.parametrize(
    ("steps", "rows", "batch", "samples"),
    [(3, 100, 8, 24), (2, 12, 8, 12), (3, 12, 8, 20), (4, 12, 8, 24), (5, 4, 8, 20), (1, 8, 8, 8)],
)
def test_samples_in_steps_count_the_small_last_batch(steps, rows, batch, samples):
    assert samples_in(steps, rows, batch) == samples


@pytest.mark.parametrize("rows", [3, 8, 12, 100, 1000])
@pytest.mark.parametrize("samples", [1, 8, 60, 77.5, 400])
def test_the_steps_come_as_close_to_a_budget_as_any(rows, samples):
    steps = steps_for(samples, rows, 8)
    off = [abs(samples_in(n, rows, 8) - samples) for n in range(1, 1000)]
    assert off[steps - 1] == min(off)


def test_steps_and_epochs_come_to_samples(tmp_path):
    sizes = [30, 30, 60]
    steps = plan(tmp_path, {"steps": 2, "batch": 8}, cohort=2)
    assert expected_samples(steps, sizes) == pytest.approx(2 * 16)
    epochs = plan(tmp_path, {"epochs": 3, "batch": 8}, cohort=1.0, dropout=0.25)
    assert expected_samples(epochs, sizes) == pytest.approx(0.75 * 3 * 120)


@pytest.mark.parametrize("sampler", ["uniform", "multinomial", "poisson"])
def test_the_expectation_is_the_samplers_mean(sampler, tmp_path):
    sizes = [10, 20, 30, 140]
    population = [Client(str(i), n, n) for i, n in enumerate(sizes)]
    draw = getattr(samplers, sampler.capitalize())(2)
    rng, total, times = generator(0), 0, 4000
    for _ in range(times):
        total += sum(member.client.examples for member in draw(population, rng))
    expected = expected_samples(plan(tmp_path, {"epochs": 1}, cohort=2, sampler=sampler), sizes)
    assert total / times == pytest.approx(expected, rel=0.03)
