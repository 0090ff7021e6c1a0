"""One base for many adapters: shared weights, nobody's changes, and the same base to the bit."""

import pytest
import torch
from torch import multiprocessing

from fedit.config import Lora, Model, Plain
from fedit.data.microworld import microworld
from fedit.train.adapters import attach
from fedit.train.lending import copy_of, lend
from fedit.train.model import fingerprint, load_base
from tests.tiny import CONFIG

KINDS = {
    "llama": CONFIG,
    "tied": {**CONFIG, "tie_word_embeddings": True},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 400},
}
IDS = torch.tensor([[5, 6, 7, 8]])


def base(kind: str = "llama"):
    texts = (example.turns[0].text for example in microworld())
    return load_base(Model(config=KINDS[kind]), texts)


def logits(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_a_copy_shares_the_weights_and_takes_an_adapter_alone():
    one = base()
    before, answer = fingerprint(one.model), logits(one.model)
    copies = [copy_of(one) for _ in range(2)]
    for copied in copies:
        adapted = attach(copied.model, Lora(rank=2), 0)
        adapted.write({name: torch.ones_like(p) for name, p in adapted.parameters.items()})
        assert not torch.equal(logits(adapted.model), answer)
    mine = {p.data_ptr() for p in one.model.parameters()}
    assert mine <= {p.data_ptr() for p in copies[0].model.parameters()}
    assert fingerprint(one.model) == before
    assert torch.equal(logits(one.model), answer)


def test_weights_that_train_are_not_shared():
    one = base()
    before = fingerprint(one.model)
    adapted = attach(copy_of(one, own_weights=True).model, Plain(kind="full"), 0)
    adapted.write({name: torch.zeros_like(p) for name, p in adapted.parameters.items()})
    assert fingerprint(one.model) == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lent_opens_as_the_same_base(kind):
    one = base(kind)
    before, answer = fingerprint(one.model), logits(one.model)
    lent = lend(one)
    assert all(p.is_meta for p in lent.skeleton.parameters())
    opened = lent.open()
    assert fingerprint(opened.model) == before == fingerprint(one.model)
    assert torch.equal(logits(opened.model), answer)
    low, size = lent.block.data_ptr(), lent.block.nbytes
    assert all(low <= p.data_ptr() < low + size for p in opened.model.parameters())
    assert len({id(p) for p in opened.model.parameters()}) == len(list(one.model.parameters()))


def _tell(lent, line):
    line.send(fingerprint(lent.open().model))
    line.recv()  # the parent writes into the block now
    opened = lent.block[:4].tolist()
    line.send(opened)


def test_another_process_sees_the_same_memory():
    lent = lend(base())
    before = fingerprint(lent.open().model)
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_tell, args=(lent, theirs), daemon=True)
    process.start()
    assert ours.recv() == before
    lent.block[:4] = torch.tensor([1, 2, 3, 4], dtype=torch.uint8)
    ours.send(None)
    assert ours.recv() == [1, 2, 3, 4]
    process.join()


def test_without_room_nothing_is_lent(monkeypatch):
    one = base()
    monkeypatch.setattr("fedit.train.lending._room", lambda: 1000)
    before = fingerprint(one.model)
    assert lend(one) is None
    assert fingerprint(one.model) == before
