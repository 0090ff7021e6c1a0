"""What texts are to the base: the mean of its last hidden states, whatever adapter is on it."""

import numpy as np
import pytest
import torch

from fedit.algorithms.feddpa import PERSONAL, Weighing
from fedit.core.errors import InputError
from fedit.core.examples import Turn
from fedit.core.messages import Order
from fedit.core.tree import same
from fedit.recipe import make_plan
from fedit.runner import Run
from fedit.train.encoded import Encoded
from fedit.train.forward import make_forward
from fedit.train.texts import prompt_of, text_vectors
from tests.tiny import tiny
from tests.zoo import adapted, made, rows, stirred

CPU = torch.device("cpu")
TEXTS = rows((5, 3), (2, 12), (9, 1), (1, 4))


def by_hand(model, row):
    ids = torch.from_numpy(row.ids.astype(np.int64))[None]
    with torch.no_grad():
        states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1]
    return states[0].double().mean(0).numpy()


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        *(("llama", adapter) for adapter in ("lora", "dora", "lora_xs", "ia3", "prefix", "prompt")),
        ("gpt2", "lora"),
    ],
)
def test_it_is_the_mean_of_the_last_states_without_the_adapter(kind, adapter):
    one, base = adapted(kind, adapter), made(kind).model.eval()
    one.write(stirred(one.read(), by=1.0))
    forward = make_forward(one.model, 0, CPU, fused=True, virtual=adapter in ("prefix", "prompt"))
    one.model.train()
    found = text_vectors(forward, TEXTS, 3)
    assert one.model.training
    assert (found.dtype, tuple(found.shape)) == (torch.float32, (4, 32))
    for vector, row in zip(found, TEXTS, strict=True):
        np.testing.assert_allclose(vector.numpy(), by_hand(base, row), rtol=1e-4, atol=1e-5)


def test_where_the_base_itself_trains_it_is_as_trained():
    one = adapted("gpt2", "full")
    one.write(stirred(one.read()))
    forward = make_forward(one.model, 0, CPU, fused=True)
    for vector, row in zip(text_vectors(forward, TEXTS, 2), TEXTS, strict=True):
        np.testing.assert_allclose(vector.numpy(), by_hand(one.model, row), rtol=1e-4, atol=1e-5)


def test_a_prompt_is_what_stands_before_the_first_learned_token():
    row = Encoded(np.arange(6, dtype=np.int32), np.array([0, 0, 1, 1, 0, 1], dtype=bool))
    assert prompt_of(row).ids.tolist() == [0, 1]
    for learn in ([0] * 6, [1] * 6):
        whole = Encoded(row.ids, np.array(learn, dtype=bool))
        assert prompt_of(whole).ids.tolist() == row.ids.tolist()


def test_a_clients_mixture_for_a_prompt(tmp_path):
    """From a run to the adapter that answers: its own rows, its own adapter, a question."""
    plan = tiny(tmp_path, algorithm={"name": "feddpa", "samples": 3}, federation={"rounds": 1})
    with Run(plan) as opened:
        list(opened.rounds())
        job, state = opened.job, opened.state
        how, found = Weighing(3, 0.5), []
        order = Order(1, 0, plan.seed, state.public, {}, frozenset(), frozenset())
        client = next(c.id for c in job.engine.clients() if job.engine.homes.load(c.id, 1).payload)
        personal = job.engine.homes.load(client, 1).payload[PERSONAL]
        own = job.trainer.texts(client, order, state.adapter)
        assert len(own) == len(job.trainer.examples[client])
        for text in ("Where does Ada live?", "zzz 0 0 0"):
            ids = np.array(job.encoder.prompt_ids([Turn("user", text)]), dtype=np.int32)
            [prompt] = text_vectors(job.forward, [Encoded(ids, np.zeros(len(ids), dtype=bool))], 1)
            found.append(how.mixture(prompt, own, plan.seed, state.adapter, personal))
    assert found[0].keys() == state.adapter.keys()
    assert not same(found[0], found[1])
    assert not same(found[0], state.adapter)


def test_prompts_that_are_learned_cannot_be_told_from_answers():
    tree = {"model": {"base": "m"}, "data": {"train": "microworld"}, "algorithm": "feddpa"}
    with pytest.raises(InputError, match="feddpa takes what is not learned for the prompt"):
        make_plan({**tree, "template": {"train_on_inputs": True}})
    assert make_plan(tree).algorithm.samples == 5
