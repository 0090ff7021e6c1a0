"""One adapter for all that a run learned, where its method has added to the base's weights as well."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fedit.core.lora import factored, layers
from fedit.core.messages import ADAPTER, BASE, Payload
from fedit.core.tree import Tree
from fedit.train.adapters import Adapted

ERROR = 0.01
"""The largest error that is allowed, relative to the whole change of the base."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An adapter of scale 1 and the same rank in every layer; `error` is ‖ΔW − BA‖ / ‖ΔW‖ over all layers."""

    adapter: Tree
    rank: int
    error: float


def whole(public: Payload, scale: float) -> Whole:
    """ΔW = s B A + what was added to the base, by the smallest rank whose error is at most `ERROR`.

    The best there is at that rank (Eckart and Young). Layers are decomposed one at a time, twice, as both
    factors of all of them would take twice the base's memory.
    """
    adapter, squares = public[ADAPTER], list[Tensor]()
    for layer in layers(adapter):
        squares.append(torch.linalg.svdvals(_change(public, layer, scale)).square())
    left = torch.zeros(1 + max(len(own) for own in squares), dtype=torch.float64)
    for own in squares:  # left[r] is the squared error at rank r
        left[: len(own)] += own.flip(0).cumsum(0).flip(0)
    rank = max(1, int((left > ERROR**2 * left[0]).sum()))
    found = Tree()
    for layer, (near, far) in layers(adapter).items():
        a, b = factored(_change(public, layer, scale), rank)
        found[near], found[far] = a.float().contiguous(), b.float().contiguous()
    error = float(left[rank] / left[0]) ** 0.5 if left[0] else 0.0
    return Whole(found, rank, error)


def _change(public: Payload, layer: str, scale: float) -> Tensor:
    near, far = layers(public[ADAPTER])[layer]
    a, b = public[ADAPTER][near].double(), public[ADAPTER][far].double()
    return public[BASE][layer].double() + scale * (b @ a)


def save_whole(adapted: Adapted, public: Payload, scale: float, folder: Path, base: str) -> str:
    """Write it as PEFT's own format, with rank and error in `fedit.json`; a sentence that tells of both."""
    one = whole(public, scale)
    adapted.save(folder, base)
    save_file(one.adapter, folder / "adapter_model.safetensors", {"format": "pt"})
    path = folder / "adapter_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said |= {"r": one.rank, "lora_alpha": one.rank, "use_rslora": False}
    path.write_text(json.dumps(said, indent=2, sort_keys=True), encoding="utf-8")
    about = {
        "rank": one.rank,
        "error": one.error,
        "holds": "the adapter and what was added to the base",
    }
    (folder / "fedit.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return (
        f"adapter/ has rank {one.rank}: it holds what the method has added to the base as well, with an "
        f"error of {one.error:.2%}; fedit export writes the exact model"
    )
