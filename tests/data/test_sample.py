from collections import Counter

from fedit.data.sample import sample


def test_sample_has_sixty_distinct_records_in_each_of_dollys_categories():
    examples = sample()
    categories = Counter(example.labels["category"] for example in examples)
    assert set(categories) == {
        "brainstorming", "classification", "closed_qa", "creative_writing",
        "general_qa", "information_extraction", "open_qa", "summarization",
    }  # fmt: skip
    assert set(categories.values()) == {60}
    prompts = {(example.turns[0].text, example.turns[0].context) for example in examples}
    assert len(prompts) == len(examples) == 480


def test_sample_is_named_by_number_and_ordered_by_the_seed():
    assert [example.where for example in sample()][:2] == ["sample:1", "sample:2"]
    assert sample(1) == sample(1)
    assert [e.answer for e in sample(1)] != [e.answer for e in sample(0)]


def test_sample_answers_are_facts_or_stand_in_their_context():
    answers = {example.turns[0].text: example.answer for example in sample()}
    assert answers["What is the capital of Kenya?"] == "Nairobi"
    assert answers["Which month comes after December?"] == "January"
    assert answers["Is the number 22 odd or even?"] == "Even"
    assert answers["Is an owl a bird, a fish, an insect or a mammal?"] == "Bird"
    for example in sample():
        if example.labels["category"] in ("closed_qa", "information_extraction"):
            assert example.answer.lower() in example.turns[0].context.lower()
