"""How much memory one micro-batch needs: the real forward and backward pass on tensors without values."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from fedit.train.encoded import Encoded

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Shape:
    """A padded batch: `rows` × `length` positions, `supervised` of them predicted and learned."""

    rows: int
    length: int
    supervised: int


@dataclass(frozen=True, slots=True)
class Working:
    """Bytes alive when the output layer begins, and at the most from there on."""

    activations: int
    peak: int


def largest(groups: Sequence[Sequence[Encoded]], size: int) -> Shape:
    """The largest batch of `size` rows that could be drawn from one of the groups."""
    shapes = []
    for rows in groups:
        lengths = [len(row.ids) for row in rows]
        learned = sorted((int(row.learn[1:].sum()) for row in rows), reverse=True)
        shapes.append(Shape(min(size, len(rows)), max(lengths), sum(learned[:size])))
    return max(shapes, key=lambda shape: (shape.rows * shape.length, shape.supervised))


def working_memory(model: nn.Module, shape: Shape, *, train: bool) -> Working:
    """What a pass over one batch allocates beside the model's own tensors, gradients included.

    Every kernel is asked for the shapes of its results only, so `model` may lie on the meta device and
    nothing is computed. Kernels are those of a CPU.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def blank(tensor: Tensor) -> Tensor:
        made = FakeTensor(fake, tensor.detach().to("meta"), _CPU)
        return made.requires_grad_(tensor.requires_grad and train)

    blanks: dict[int, Tensor] = {}
    held = {n: blanks.setdefault(id(t), blank(t)) for n, t in slots(model).items()}
    modes = [(module, module.training) for module in model.modules()]
    model.train(train)
    try:
        with fake, torch.set_grad_enabled(train), _Living() as living:
            return _pass(model, held, shape, living, train)
    finally:
        for module, training in modes:
            module.training = training


def slots(model: nn.Module) -> dict[str, Tensor]:
    """Every place that holds a parameter or buffer, by name: tied ones have two, a shared module one."""
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        found |= {f"{prefix}.{name}".removeprefix("."): tensor for name, tensor in own}
    return found


def _pass(
    model: Any, held: dict[str, Tensor], shape: Shape, living: "_Living", train: bool
) -> Working:
    before: list[int] = []
    ids = torch.zeros((shape.rows, shape.length), dtype=torch.int64)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    head = model.get_output_embeddings()
    with head.register_forward_pre_hook(partial(_supervised, shape, living, before)):
        logits = functional_call(model, held, (), given, tie_weights=False).logits[0]
    targets = torch.zeros(shape.supervised, dtype=torch.int64)
    loss = nn.functional.cross_entropy(logits.float(), targets, reduction="none").sum()
    del logits
    if train:
        loss.backward()
    return Working(before[0], living.peak)


def _supervised(
    shape: Shape, living: "_Living", before: list[int], head: nn.Module, inputs: tuple[Tensor]
) -> tuple[Tensor]:
    """As many positions as are supervised; which ones makes no difference to their memory."""
    before.append(living.now)
    return (inputs[0].flatten(0, 1)[: shape.supervised].unsqueeze(0),)


class _Living(TorchDispatchMode):
    """Bytes of the storages that operations have made and nobody has let go of: now, and at the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, made)
        return made

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known[storage] = True
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, size)
        return tensor

    def _release(self, size: int) -> None:
        self.now -= size
