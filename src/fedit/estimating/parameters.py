"""What a model weighs: the base, the adapter on it, and either as it would travel."""

import torch
from torch import nn

from fedit.build import Job
from fedit.config import Plain
from fedit.core.tree import Tree


def base_parameters(job: Job) -> dict[str, nn.Parameter]:
    """The base's own parameters by its own names, whatever adapter is on it."""
    mine = {id(parameter) for parameter in job.adapted.parameters.values()}
    own = isinstance(job.plan.adapter, Plain)  # BitFit and full tuning train the base itself
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): parameter
        for name, parameter in job.adapted.model.named_parameters()
        if own or id(parameter) not in mine
    }


def blank_tree(parameters: dict[str, nn.Parameter]) -> Tree:
    """The parameters as they would travel, in fp32, without their values."""
    return {
        name: torch.empty_like(p, device="meta", dtype=torch.float32, requires_grad=False)
        for name, p in parameters.items()
    }


def count(parameters: dict[str, nn.Parameter]) -> int:
    """How many numbers they hold."""
    return sum(p.numel() for p in parameters.values())


def active(job: Job) -> int:
    """Parameters that every token is multiplied with: all but the input embedding, which is looked up.

    An embedding that is the output layer as well counts once.
    """
    base = base_parameters(job)
    table = job.base.model.get_input_embeddings().weight  # type: ignore[operator]
    head = job.base.model.get_output_embeddings()  # type: ignore[operator]
    tied = head is not None and getattr(head, "weight", None) is table
    return count(base) - (0 if tied else table.numel())


def held_bytes(job: Job) -> int:
    """Bytes of the base's weights in memory, in their precision or quantised.

    Quantised are its linear layers but for the output: one byte each, or half a byte and a scale in fp32
    for every 64.
    """
    quantised = job.plan.model.quantise
    each = {"int8": 1.0, "int4": 0.5 + 4 / 64}.get(quantised or "", 0.0)
    layers = job.base.model.named_modules() if quantised else ()
    head = job.base.model.get_output_embeddings()  # type: ignore[operator]
    small = {
        id(layer.weight)
        for _, layer in layers
        if isinstance(layer, nn.Linear) and layer is not head
    }
    parameters = base_parameters(job).values()
    buffers = sum(b.nbytes for b in job.adapted.model.buffers())
    whole = sum(p.nbytes for p in parameters if id(p) not in small)
    return round(buffers + whole + each * sum(p.numel() for p in parameters if id(p) in small))
