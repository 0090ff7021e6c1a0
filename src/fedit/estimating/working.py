"""How much memory one micro-batch needs: the real forward and backward pass on tensors without values."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from fedit.train.encoded import Encoded
from fedit.train.forward import Forward

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Working:
    """Bytes alive when the output layer begins, and at the most in the whole pass."""

    activations: int
    peak: int


def largest(
    groups: Sequence[Sequence[Encoded]], size: int, *, packs: bool, together: int = 1
) -> list[Encoded]:
    """The largest batch of `size` rows that could be drawn from one of the groups.

    Largest is that of most tokens where rows are laid end to end (`packs`), else of most positions after
    padding: the longest row and those with most to learn. Of several groups `together` those of each.
    """
    batches = []
    for rows in groups:
        longest, *others = sorted(rows, key=lambda row: len(row.ids), reverse=True)
        if not packs:
            others.sort(key=_supervised, reverse=True)
        batches.append([longest, *others[: size - 1]])
    most = nlargest(
        together, batches, key=lambda rows: (positions(rows, packs), sum(map(_supervised, rows)))
    )
    return [row for rows in most for row in rows]


def positions(rows: Sequence[Encoded], packs: bool) -> int:
    """Places in a batch of these rows, padding included where there is any."""
    lengths = [len(row.ids) for row in rows]
    return sum(lengths) if packs else len(lengths) * max(lengths)


def _supervised(row: Encoded) -> int:
    return int(row.learn[1:].sum())


def working_memory(forward: Forward, rows: Sequence[Encoded], *, train: bool) -> Working:
    """What a pass over one batch allocates beside the model's own tensors, gradients included.

    Every kernel is asked for the shapes of its results only, so the model may lie on the meta device and
    nothing is computed. Kernels are those of a CPU.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def blank(tensor: Tensor) -> Tensor:
        made = FakeTensor(fake, tensor.detach().to("meta"), _CPU)
        return made.requires_grad_(tensor.requires_grad and train)

    blanks: dict[int, Tensor] = {}
    one_pass = Pass(replace(forward, device=_CPU))
    held = {n: blanks.setdefault(id(t), blank(t)) for n, t in slots(one_pass).items()}
    modes = [(module, module.training) for module in one_pass.modules()]
    one_pass.train(train)
    try:
        with fake:
            return measured(one_pass, held, rows)
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


class Pass(nn.Module):
    """Losses of a batch and, in training, their backward pass, as a module whose tensors can be replaced."""

    def __init__(self, forward: Forward):
        super().__init__()
        self.model, self._scoring = forward.model, forward

    def forward(self, rows: Sequence[Encoded]) -> None:
        """Make the pass."""
        losses, _ = self._scoring.losses(rows)
        if self.training:
            losses.sum().backward()


def measured(one_pass: Pass, held: Mapping[str, Tensor], rows: Sequence[Encoded]) -> Working:
    """The bytes of a pass with `held` in the place of the model's own tensors."""
    before: list[int] = []
    head = one_pass.model.get_output_embeddings()
    with (
        torch.set_grad_enabled(one_pass.training),
        Living() as living,
        head.register_forward_pre_hook(lambda *_: before.append(living.now)),
    ):
        functional_call(one_pass, dict(held), (rows,), tie_weights=False)
    return Working(before[0], living.peak)


class Living(TorchDispatchMode):
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
