"""What a conversation remembers, and what it lets go."""

import pytest

from fedit.chat.models import open_voices
from fedit.chat.talk import Talk
from fedit.core.errors import InputError
from fedit.core.examples import Turn


@pytest.fixture(scope="module")
def voices(study):
    return open_voices(study, ["central"])


def exchange(talk: Talk, question: str) -> list[tuple[Turn, ...]]:
    """Ask, let everyone answer, and give back what each model was shown."""
    replies = talk.ask(question)
    for reply in replies:
        list(reply)
    talk.keep(replies)
    return [tuple(reply.turns) for reply in replies]


def prompt(talk: Talk, turns) -> list[int]:
    return talk.voices[0].mount.loaded.encoder.prompt_ids(turns)


def test_each_model_is_shown_the_questions_and_its_own_answers(voices, script):
    talk = Talk(voices)
    script("first")
    exchange(talk, "one")
    script("second")
    exchange(talk, "two")
    shown, other = exchange(talk, "three")
    assert [(turn.role, turn.text) for turn in shown] == [
        ("user", "one"),
        ("assistant", "first"),
        ("user", "two"),
        ("assistant", "second"),
        ("user", "three"),
    ]
    assert shown == other
    talk.clear()
    [alone, _] = exchange(talk, "four")
    assert alone == (Turn("user", "four"),)


def test_a_passage_belongs_to_one_question(voices, script):
    script("yes")
    talk = Talk(voices[:1])
    talk.context = "Tea."
    assert exchange(talk, "one") == [(Turn("user", "one", "Tea."),)]
    [turns] = exchange(talk, "two")
    assert turns[0] == Turn("user", "one", "Tea.")
    assert turns[-1] == Turn("user", "two")


def test_a_model_that_was_not_heard_is_not_given_words(voices, script):
    script("yes")
    talk = Talk(voices)
    replies = talk.ask("one")
    list(replies[0])  # and the other one is never begun
    talk.keep(replies)
    first, second = exchange(talk, "two")
    assert len(first) == 3
    assert len(second) == 1


def test_the_oldest_exchanges_go_first_and_that_is_said_once(voices, script):
    script("yes")
    talk = Talk(voices[:1])
    lengths, notes = [], []
    for number in range(12):
        [turns] = exchange(talk, f"Is this the question with the number {number} of them all?")
        assert turns[-1].text.endswith(f"number {number} of them all?")
        loaded = talk.voices[0].mount.loaded
        assert len(loaded.encoder.prompt_ids(turns)) <= loaded.plan.template.max_length
        lengths.append(len(turns))
        notes += talk.told()
    assert max(lengths) == lengths[-1] > 1  # as many as fit, and no more
    assert lengths[-1] < 23
    assert len(notes) == 1
    assert "oldest exchanges no longer fit into 96 tokens" in notes[0]
    [turns] = exchange(talk, "word " * 300)
    assert len(turns) == 1
    [note] = talk.told()
    assert "middle of a question" in note


def test_an_answer_that_is_cut_is_told(voices, script):
    script("one two three four five six")
    talk = Talk(voices, new=2)
    exchange(talk, "one")
    assert talk.told() == ["answers end at 2 tokens; --max-new-tokens gives more"]
    exchange(talk, "two")
    assert talk.told() == []


def test_answers_too_long_for_the_model_are_refused(voices):
    Talk(voices, new=2048 - 24)
    with pytest.raises(InputError, match="give at most 2024"):
        Talk(voices, new=2048 - 23)


def test_sampled_answers_differ_from_question_to_question_but_not_from_chat_to_chat(voices):
    def answers() -> list[str]:
        talk = Talk(voices[:1], new=20, temperature=1.5, seed=3)
        said = []
        for _ in range(2):
            replies = talk.ask("one")
            said += [list(reply)[-1] for reply in replies]
        return said

    first = answers()
    assert answers() == first
    assert first[0] != first[1]
