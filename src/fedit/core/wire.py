"""Payloads as bytes: one safetensors block with a JSON envelope in its metadata, and nothing else."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedit.core.errors import FeditError
from fedit.core.messages import Payload
from fedit.core.tree import Tree

# In the order in which safetensors lays tensors out.
_DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANK = {dtype: rank for rank, dtype in enumerate(_DTYPES)}


class WireError(FeditError):
    """Bytes that are not a payload."""


def pack(payload: Payload, envelope: Mapping[str, Any]) -> bytes:
    """Payload and envelope (JSON values) as one block; tensors are named "role/name", a role has no "/"."""
    block: bytes = save(_apart(_flat(payload)), _metadata(payload, envelope))
    return block


def unpack(block: bytes) -> tuple[Payload, dict[str, Any]]:
    """The payload and envelope of a block. Raises WireError."""
    try:
        length = int.from_bytes(block[:8], "little")
        header = json.loads(block[8 : 8 + length], object_pairs_hook=_without_duplicates)
        known = json.loads(header["__metadata__"]["fedit"], object_pairs_hook=_without_duplicates)
        if not isinstance(known["roles"], list) or not isinstance(known["envelope"], dict):
            raise TypeError("roles must be a list and envelope an object")
        payload: Payload = {role: {} for role in known["roles"]}
        for full, tensor in load(block).items():
            role, _, name = full.partition("/")
            payload[role][name] = tensor
        return payload, known["envelope"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"not a fedit payload: {type(error).__name__}: {error}") from None


def packed_size(payload: Payload, envelope: Mapping[str, Any]) -> int:
    """len(pack(payload, envelope)) without copying a tensor."""
    return packed_sizes(payload)(envelope)


def packed_sizes(payload: Payload) -> Callable[[Mapping[str, Any]], int]:
    """`packed_size` of one payload under any envelope: its tensors are looked at once."""
    header, offset, flat = dict[str, Any](), 0, _flat(payload)
    for name, tensor in sorted(flat.items(), key=lambda item: (_RANK[item[1].dtype], item[0])):
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    tensors = len(_compact(header)) if header else 1  # after a comma; without any, the brace closes

    def size(envelope: Mapping[str, Any]) -> int:
        text = len(_compact({"__metadata__": _metadata(payload, envelope)})) - 1 + tensors
        return 8 + -(-text // 8) * 8 + offset

    return size


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _flat(payload: Payload) -> Tree:
    return {f"{role}/{name}": t for role, tree in payload.items() for name, t in tree.items()}


def _apart(flat: Tree) -> Tree:
    """Every tensor contiguous, and copied where it shares memory with one before it."""
    apart, seen = Tree(), set[int]()
    for name, tensor in flat.items():
        tensor = tensor.contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object read strictly: two readers must never take different values from one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _metadata(payload: Payload, envelope: Mapping[str, Any]) -> dict[str, str]:
    known = {"roles": list(payload), "envelope": dict(envelope)}
    return {"fedit": json.dumps(known, separators=(",", ":"))}
