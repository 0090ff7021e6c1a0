"""Payloads as bytes: one safetensors block with a JSON envelope in its metadata, and nothing else."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fedit.core.errors import quoted
from fedit.core.header import (
    DTYPES,
    HEADER,
    Entry,
    Reason,
    WireError,
    difference,
    read_header,
)
from fedit.core.messages import Payload
from fedit.core.tree import Spec, Tree

Block = bytes | bytearray | memoryview
"""Bytes that may be a payload."""

_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES)}


def pack(payload: Payload, envelope: Mapping[str, Any]) -> bytes:
    """Payload and envelope (JSON values) as one block; tensors are named "role/name", a role has no "/".

    The block is what the safetensors library writes, but made with one copy of the numbers, not two.
    """
    flat = _flat(payload)
    header, _ = _laid_out(flat)
    text = _compact({"__metadata__": _metadata(payload, envelope), **header})
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *(_bytes(flat[n]) for n in header)))


def unpack(
    block: Block, wanted: Mapping[str, Spec] | None = None, *, most: int | None = None
) -> tuple[Payload, dict[str, Any]]:
    """The payload and envelope of a stranger's block, which is read strictly. Raises WireError.

    `wanted` are the only roles, names, shapes and dtypes that it may hold, `most` its greatest size. Beside
    the block this takes one copy of its numbers, made once everything else was checked.
    """
    if wanted is not None:
        most = min(largest(wanted), most or largest(wanted))
    if most is not None and len(block) > most:
        raise WireError(Reason.SIZE, f"{len(block)} bytes, at most {most}")
    return _read(block, wanted, own=False)


def unpack_own(block: Block) -> tuple[Payload, dict[str, Any]]:
    """The same of a block that fedit wrote here: a file, or a worker's message. Raises WireError.

    Its header may be of any size, and its envelope may hold NaN and infinity.
    """
    return _read(block, None, own=True)


def largest(wanted: Mapping[str, Spec]) -> int:
    """The most bytes a block of these roles can have: what to refuse more than, before it is received."""
    shapes = [shape_dtype for tree in wanted.values() for shape_dtype in tree.values()]
    return 8 + HEADER + sum(torch.Size(shape).numel() * d.itemsize for shape, d in shapes)


def _read(
    block: Block, wanted: Mapping[str, Spec] | None, *, own: bool
) -> tuple[Payload, dict[str, Any]]:
    view = memoryview(block).cast("B")
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 + length:
        raise WireError(Reason.SIZE, f"{len(view)} bytes end within the header of {length}")
    if length > HEADER and not own:
        raise WireError(Reason.HEADER, f"a header of {length} bytes, at most {HEADER}")
    data = view[8 + length :]
    found = read_header(bytes(view[8 : 8 + length]), len(data), own=own)
    if wanted is not None:
        specs = {
            role: {name: (entry.shape, entry.dtype) for name, entry in tree.items()}
            for role, tree in found.entries.items()
        }
        if fault := difference(specs, wanted):
            raise WireError(*fault)
    payload = {
        role: {name: _tensor(data, entry, name) for name, entry in tree.items()}
        for role, tree in found.entries.items()
    }
    return payload, found.envelope


def _tensor(data: memoryview, entry: Entry, name: str) -> Tensor:
    """A tensor in memory of its own, as a block may be read-only and begin anywhere."""
    if entry.begin == entry.end:
        return torch.empty(entry.shape, dtype=entry.dtype)
    raw = torch.frombuffer(bytearray(data[entry.begin : entry.end]), dtype=torch.uint8)
    if entry.dtype == torch.bool and bool((raw > 1).any()):
        raise WireError(Reason.VALUE, f"{quoted(name)}: a truth is 0 or 1")
    return raw.view(entry.dtype).reshape(entry.shape)


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: memoryview = flat.view(torch.uint8).numpy().data
    return raw


def packed_size(payload: Payload, envelope: Mapping[str, Any]) -> int:
    """len(pack(payload, envelope)) without copying a tensor."""
    return packed_sizes(payload)(envelope)


def packed_sizes(payload: Payload) -> Callable[[Mapping[str, Any]], int]:
    """`packed_size` of one payload under any envelope: its tensors are looked at once."""
    header, offset = _laid_out(_flat(payload))
    tensors = len(_compact(header)) if header else 1  # after a comma; without any, the brace closes

    def size(envelope: Mapping[str, Any]) -> int:
        text = len(_compact({"__metadata__": _metadata(payload, envelope)})) - 1 + tensors
        return 8 + -(-text // 8) * 8 + offset

    return size


def _laid_out(flat: Tree) -> tuple[dict[str, Any], int]:
    """What the header says of the tensors, in the order of their bytes, and how many bytes these are."""
    header, offset = dict[str, Any](), 0
    for name, tensor in sorted(flat.items(), key=lambda item: (_RANK[item[1].dtype], item[0])):
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    return header, offset


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _flat(payload: Payload) -> Tree:
    return {f"{role}/{name}": t for role, tree in payload.items() for name, t in tree.items()}


def _metadata(payload: Payload, envelope: Mapping[str, Any]) -> dict[str, str]:
    known = {"roles": list(payload), "envelope": dict(envelope)}
    return {"fedit": json.dumps(known, separators=(",", ":"))}
