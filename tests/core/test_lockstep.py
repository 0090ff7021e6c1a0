import threading
import time

import pytest

from fedit.core.errors import FeditError
from fedit.core.lockstep import Lockstep


def doubled(asked):
    return [2 * one if one >= 0 else FeditError(f"{one} is below 0") for one in asked]


class Watched:
    """Doubles numbers, and keeps what it was asked at once."""

    def __init__(self):
        self.asked = []
        self.steps = Lockstep(self.carry_out)

    def carry_out(self, asked):
        self.asked.append(list(asked))
        return doubled(asked)

    def asking(self, *numbers, wait=0.0):
        def part():
            time.sleep(wait)
            return [self.steps.ask(number) for number in numbers]

        return part


def test_questions_are_carried_out_together_in_the_order_of_the_functions():
    some = Watched()
    parts = [some.asking(1, 2, 3, wait=0.05), some.asking(10), some.asking(), some.asking(20, 30)]
    assert some.steps.run(parts) == [[2, 4, 6], [20], [], [40, 60]]
    assert some.asked == [[1, 10, 20], [2, 30], [3]]


def test_only_one_function_runs_at_a_time():
    some, running, seen = Watched(), [], []

    def part(number):
        for _ in range(3):
            running.append(number)
            time.sleep(0.002)
            seen.append(list(running))
            running.pop()
            some.steps.ask(number)

    some.steps.run([lambda n=n: part(n) for n in range(4)])
    assert seen == [[n] for n in range(4)] * 3


def test_an_error_is_raised_where_it_was_asked_and_nowhere_else():
    some = Watched()

    def careful():
        try:
            return some.steps.ask(-1)
        except FeditError as error:
            return str(error)

    assert some.steps.run([careful, some.asking(1, 2)]) == ["-1 is below 0", [2, 4]]


@pytest.mark.parametrize("error", [KeyError("bug"), KeyboardInterrupt()])
def test_what_nobody_catches_ends_all_functions_and_their_threads(error):
    some, before, unwound = Watched(), threading.active_count(), []

    def broken():
        some.steps.ask(1)
        raise error

    def patient():
        try:
            some.steps.ask(1)
            some.steps.ask(2)
        finally:
            unwound.append(True)

    with pytest.raises(type(error)):
        some.steps.run([patient, broken, patient])
    assert unwound == [True, True]
    assert threading.active_count() == before


def test_an_interrupt_while_questions_are_carried_out_ends_all_functions():
    def interrupted(asked):
        raise KeyboardInterrupt

    steps, before = Lockstep(interrupted), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        steps.run([lambda: steps.ask(1), lambda: steps.ask(2)])
    assert threading.active_count() == before


def test_outside_of_a_run_a_question_is_answered_at_once():
    assert Lockstep(doubled).ask(4) == 8
    with pytest.raises(FeditError, match="below 0"):
        Lockstep(doubled).ask(-4)
