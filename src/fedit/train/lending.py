"""One copy of a base for several adapters, one after another or in several processes at once."""

import copy
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedit.train.model import Base

_ALIGNED = 64  # bytes; any dtype may be viewed there
_SHARED_FOLDER = "/dev/shm"  # noqa: S108 - where Linux keeps shared memory; it is only measured


@dataclass(frozen=True)
class Lent:
    """A base on its way to other processes: one block of memory, and a model without weights.

    The block is a tensor that processes of this machine share, or an array that whoever carries it may
    map into many. `base` is what goes with the model, None where only the model is needed.
    """

    skeleton: nn.Module
    block: torch.Tensor | NDArray[np.uint8]
    places: list[tuple[int, torch.dtype, torch.Size]]
    base: Base | None

    def open(self) -> Base:
        """The base, its weights in the shared block: nobody may write to them."""
        assert self.base is not None
        return replace(self.base, model=self.open_model())

    def open_model(self) -> nn.Module:
        """The model alone."""
        views, known = iter(self.places), dict[int, torch.Tensor]()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writ")  # nobody writes
            block = torch.as_tensor(self.block)
        for holder, name, tensor in list(_slots(self.skeleton)):
            if id(tensor) not in known:
                view = _view(block, *next(views))
                parameter = isinstance(tensor, nn.Parameter)
                known[id(tensor)] = nn.Parameter(view, requires_grad=False) if parameter else view
            holder[name] = known[id(tensor)]
        return self.skeleton

    def bare(self) -> "Lent":
        """The same without a tokenizer."""
        return replace(self, base=None)


def copy_of(base: Base, *, own_weights: bool = False) -> Base:
    """A model of its own to put an adapter on, with the same weights in memory unless it trains them."""
    shared = {} if own_weights else {id(p): p for p in base.model.parameters()}
    return replace(base, model=copy.deepcopy(base.model, shared))


def lend(base: Base, *, shared: bool = True) -> Lent | None:
    """The base for other processes; None on a GPU, quantised, or without room in shared memory.

    Its weights move to the block one by one, so there is never a second copy of them. Unless it is to be
    `shared` among processes of this machine, the block is an array in this one's own memory.
    """
    slots = {id(tensor): tensor for _, _, tensor in _slots(base.model)}
    plain = all(type(tensor) in (nn.Parameter, torch.Tensor) for tensor in slots.values())
    places, size = list[tuple[int, torch.dtype, torch.Size]](), 0
    for tensor in slots.values():
        places.append((size, tensor.dtype, tensor.shape))
        size += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    if base.device.type != "cpu" or not plain or (shared and size > _room()):
        return None
    block = torch.empty(size, dtype=torch.uint8)
    if shared:
        block.share_memory_()
    empty: dict[int, Any] = {}
    for tensor, place in zip(slots.values(), places, strict=True):
        bare = torch.empty_like(tensor, device="meta")
        parameter = isinstance(tensor, nn.Parameter)
        empty[id(tensor)] = nn.Parameter(bare, requires_grad=False) if parameter else bare
        view = _view(block, *place)
        view.copy_(tensor.detach())
        tensor.data = view
    skeleton = copy.deepcopy(base.model, empty)
    carried = block if shared else block.numpy()
    return Lent(skeleton, carried, places, replace(base, model=nn.Module()))


def _slots(model: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    """Every place in which a module holds a parameter or buffer; tied ones come more than once."""
    for module in model.modules():
        for holder in (module._parameters, module._buffers):
            for name, tensor in holder.items():
                if tensor is not None:
                    yield holder, name, tensor


def _view(block: torch.Tensor, start: int, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
    return block[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)


def _room() -> int:
    """Bytes that shared memory can still take; writing beyond them would kill the process."""
    if not os.path.isdir(_SHARED_FOLDER):
        return 2**63
    found = os.statvfs(_SHARED_FOLDER)
    return found.f_bavail * found.f_frsize
