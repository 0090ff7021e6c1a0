"""Batches and the losses of their tokens, against one row at a time and by hand."""

from itertools import islice

import numpy as np
import pytest
import torch

from fedit.train.batches import collate, shuffled, token_losses
from tests.zoo import ARCHITECTURES, adapted, made, rows, stirred

CPU = torch.device("cpu")
ROWS = rows((5, 3), (2, 12), (9, 1), (1, 4), (3, 3))


def by_hand(logits, ids, learn):
    """−log softmax of each learned token at the place before it; `logits` and `ids` of one row."""
    said = torch.log_softmax(logits.double(), dim=-1)
    return [-float(said[i - 1, ids[i]]) for i in range(1, len(ids)) if learn[i]]


def losses_of(model, chosen, pad=0):
    model.eval()
    with torch.no_grad():
        losses, places = token_losses(model, collate(chosen, pad), CPU)
    return [losses[places == row].tolist() for row in range(len(chosen))]


def test_a_batch_is_padded_on_the_right_and_counts_what_is_real():
    batch = collate(ROWS[:3], pad=9)
    assert batch.ids.shape == batch.attention.shape == batch.learn.shape == (3, 14)
    for i, row in enumerate(ROWS[:3]):
        n = len(row.ids)
        assert batch.ids[i].tolist() == [*row.ids.tolist(), *[9] * (14 - n)]
        assert batch.attention[i].tolist() == [1] * n + [0] * (14 - n)
        assert batch.learn[i].tolist() == [*row.learn.tolist(), *[False] * (14 - n)]
    assert batch.tokens == 8 + 14 + 10
    assert batch.supervised == 3 + 12 + 1


def test_the_first_token_of_a_row_is_never_counted():
    [row] = rows((0, 5))
    assert collate([row], 0).supervised == 4
    assert len(losses_of(made().model, [row])[0]) == 4


def test_labels_come_from_the_mask_not_from_the_pad():
    [row] = rows((3, 4))
    row.ids[-1] = 0
    assert collate([row, *ROWS[1:2]], pad=0).supervised == 4 + 12


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_neither_padding_nor_neighbours_change_a_rows_losses(kind):
    model = made(kind).model.eval()
    together = losses_of(model, ROWS, pad=0)
    for row, found in zip(ROWS, together, strict=True):
        ids = torch.tensor(row.ids.tolist())
        with torch.no_grad():
            alone = model(input_ids=ids[None], use_cache=False).logits[0]
        np.testing.assert_allclose(found, by_hand(alone, ids, row.learn), rtol=1e-4)
    # Bits may differ with the pad: a padded place is computed and thrown away.
    for first, other in zip(together, losses_of(model, ROWS, pad=77), strict=True):
        np.testing.assert_allclose(first, other, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gpt_neox"])
def test_losses_behind_a_prompt_are_of_the_right_tokens(kind):
    """Virtual tokens shift the logits: by hand, they are embeddings put before the text's own."""
    one = adapted(kind, "prompt")
    one.write(stirred(one.read()))
    [virtual] = one.read().values()
    base = one.model.get_base_model()
    for row, found in zip(ROWS, losses_of(one.model, ROWS), strict=True):
        ids = torch.tensor(row.ids.tolist())
        with torch.no_grad():
            text = base.get_input_embeddings()(ids)
            said = base(inputs_embeds=torch.cat([virtual, text])[None], use_cache=False).logits[0]
        wanted = by_hand(said[len(virtual) :], ids, row.learn)
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        assert not np.allclose(wanted, by_hand(said[:-3], ids, row.learn), rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gpt_neox", "gemma2"])
def test_losses_behind_a_prefix_do_not_depend_on_neighbours(kind):
    one = adapted(kind, "prefix")
    one.write(stirred(one.read(), by=1.0))
    together = losses_of(one.model, ROWS)
    alone = [losses_of(one.model, [row])[0] for row in ROWS]
    bare = losses_of(made(kind).model, ROWS)
    for first, other, without in zip(together, alone, bare, strict=True):
        np.testing.assert_allclose(first, other, rtol=1e-4)
        assert not np.allclose(first, without, rtol=1e-3)


def test_losses_are_fp32_on_a_bf16_base():
    losses, _ = token_losses(made(precision="bf16").model, collate(ROWS, 0), CPU)
    assert losses.dtype == torch.float32


def test_an_epoch_holds_every_row_once_and_the_next_is_in_another_order():
    batches = list(islice(shuffled(ROWS, 2, np.random.default_rng(0)), 6))
    assert [len(batch) for batch in batches] == [2, 2, 1, 2, 2, 1]
    first, second = (
        [id(row) for batch in part for row in batch] for part in (batches[:3], batches[3:])
    )
    assert sorted(first) == sorted(second) == sorted(map(id, ROWS))
    assert first != second
    again = list(islice(shuffled(ROWS, 2, np.random.default_rng(0)), 6))
    assert [list(map(id, batch)) for batch in again] == [list(map(id, batch)) for batch in batches]


def test_with_odds_an_epoch_is_as_long_and_rows_come_as_often_as_they_say():
    odds = np.array([0.5, 0.3, 0.1, 0.1, 0.0])
    drawn = list(islice(shuffled(ROWS, 2, np.random.default_rng(0), odds), 3 * 2000))
    assert [len(batch) for batch in drawn[:6]] == [2, 2, 1, 2, 2, 1]
    numbers = {id(row): i for i, row in enumerate(ROWS)}
    counts = np.bincount([numbers[id(row)] for batch in drawn for row in batch], minlength=5)
    n = counts.sum()
    assert n == 5 * 2000
    assert np.all(np.abs(counts - n * odds) <= 4 * np.sqrt(n * odds * (1 - odds)))
    again = list(islice(shuffled(ROWS, 2, np.random.default_rng(0), odds), 9))
    assert [list(map(id, batch)) for batch in again] == [list(map(id, b)) for b in drawn[:9]]
