"""Numbers in few bits: bf16, whole numbers laid bit by bit, and which numbers are the largest."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_MOST = torch.finfo(torch.bfloat16).max
_AT_ONCE = (
    1 << 20
)  # numbers whose single bits, a byte each, are in memory at a time; a multiple of 8


def short(values: Tensor) -> Tensor:
    """The nearest bf16; what rounding would make infinite becomes the largest number there is."""
    return values.clamp(-_MOST, _MOST).to(torch.bfloat16)


def rounded_up(values: Tensor) -> Tensor:
    """The least bf16 that is not below the value (≥ 0)."""
    near = values.to(torch.bfloat16)
    above = (near.view(torch.int16) + 1).view(torch.bfloat16)
    return torch.where(near.double() < values, above, near)


def joined(whole: Tensor, bits: int) -> Tensor:
    """Whole numbers (int8) in so many bits each, in two's complement, low bits first, as bytes."""
    if bits == 8:
        return whole.view(torch.uint8)
    numbers, parts = whole.view(torch.uint8).numpy(), [np.zeros(0, dtype=np.uint8)]
    for start in range(0, len(numbers), _AT_ONCE):
        some = numbers[start : start + _AT_ONCE, None]
        single = np.unpackbits(some, axis=1, count=bits, bitorder="little")
        parts.append(np.packbits(single.reshape(-1), bitorder="little"))
    return torch.from_numpy(np.concatenate(parts))


def apart(block: Tensor, bits: int, count: int) -> Tensor:
    """So many whole numbers (int8) from bytes. Raises ValueError where a bit after the last one is set."""
    if bits == 8:
        return block.view(torch.int8)
    if count * bits % 8 and int(block[-1]) >> count * bits % 8:
        raise ValueError("bits after the last number are not 0")
    numbers, found = block.numpy(), np.empty(count, dtype=np.uint8)
    for start in range(0, count, _AT_ONCE):
        end = min(count, start + _AT_ONCE)
        some = numbers[start * bits // 8 : -(-end * bits // 8)]
        single = np.unpackbits(some, count=(end - start) * bits, bitorder="little")
        few = np.packbits(single.reshape(-1, bits), axis=1, bitorder="little")
        found[start:end] = few.reshape(-1)
    high = 8 - bits
    return (torch.from_numpy(found) << high).view(torch.int8) >> high  # the sign, spread


def largest(magnitudes: np.ndarray[Any, np.dtype[np.float32]], count: int) -> Any:
    """Places of so many of the largest, in order; of equals the first, on any number of threads."""
    if count == len(magnitudes):
        return np.arange(count)
    least = np.partition(magnitudes, len(magnitudes) - count)[len(magnitudes) - count]
    above = np.flatnonzero(magnitudes > least)
    equal = np.flatnonzero(magnitudes == least)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))
