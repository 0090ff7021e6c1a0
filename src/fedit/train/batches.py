"""From encoded examples to padded batches, and the loss of every supervised token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedit.train.encoded import Encoded


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` and `attention` (rows × length, int64) and `learn` (bool): which positions are supervised."""

    ids: Tensor
    attention: Tensor
    learn: NDArray[np.bool_]

    @property
    def supervised(self) -> int:
        """Tokens that are predicted and counted; the first of a row never is."""
        return int(self.learn[:, 1:].sum())

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int(self.attention.sum())


def collate(rows: Sequence[Encoded], pad: int) -> Batch:
    """Pad on the right to the longest row; labels come from the mask, so `pad` may be any token."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = np.full(shape, pad, dtype=np.int64)
    attention, learn = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n], attention[i, :n], learn[i, :n] = row.ids, 1, row.learn
    return Batch(torch.from_numpy(ids), torch.from_numpy(attention), learn)


def token_losses(model: Any, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cross entropy in nats of each supervised token (fp32) and the row it stands in.

    The output layer sees the supervised positions only: of the logits, most of the work in a small model
    with a large vocabulary, nothing is computed that is not learned.
    """
    ids, length = batch.ids.to(device), batch.ids.shape[1]
    rows, before = (torch.from_numpy(x).to(device) for x in batch.learn[:, 1:].nonzero())
    head = model.get_output_embeddings()
    with head.register_forward_pre_hook(partial(_supervised, rows, before - length)):
        output = model(input_ids=ids, attention_mask=batch.attention.to(device), use_cache=False)
    logits = output.logits[0]
    losses = nn.functional.cross_entropy(logits.float(), ids[rows, before + 1], reduction="none")
    return losses, rows


def _supervised(
    rows: Tensor, before: Tensor, head: nn.Module, inputs: tuple[Tensor]
) -> tuple[Tensor]:
    """Hidden states before each supervised token, [1, supervised, width].

    They are counted from the end: a model with virtual tokens puts more of them in front.
    """
    (hidden,) = inputs
    return (hidden[rows, before].unsqueeze(0),)


def shuffled(
    rows: Sequence[Encoded],
    size: int,
    rng: np.random.Generator,
    odds: NDArray[np.float64] | None = None,
) -> Iterator[list[Encoded]]:
    """Batches of one epoch after another, for ever, each epoch in a new order; its last may be smaller.

    With `odds`, the chance of each row, an epoch holds as many rows, drawn with replacement.
    """
    n = len(rows)
    while True:
        order = rng.permutation(n) if odds is None else rng.choice(n, n, p=odds)
        for first in range(0, n, size):
            yield [rows[i] for i in order[first : first + size]]
