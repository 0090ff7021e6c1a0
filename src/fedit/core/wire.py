"""Payloads as bytes: one safetensors block with a JSON envelope in its metadata, and nothing else."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedit.core.errors import FeditError
from fedit.core.messages import Payload
from fedit.core.tree import Tree

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class WireError(FeditError):
    """Bytes that are not a payload."""


def pack(payload: Payload, envelope: Mapping[str, Any]) -> bytes:
    """Payload and envelope (JSON values) as one block; tensors are named "role/name", a role has no "/"."""
    block: bytes = save(_flat(payload), _metadata(payload, envelope))
    return block


def unpack(block: bytes) -> tuple[Payload, dict[str, Any]]:
    """The payload and envelope of a block. Raises WireError."""
    try:
        length = int.from_bytes(block[:8], "little")
        header = json.loads(block[8 : 8 + length])
        known = json.loads(header["__metadata__"]["fedit"])
        payload: Payload = {role: {} for role in known["roles"]}
        for full, tensor in load(block).items():
            role, _, name = full.partition("/")
            payload[role][name] = tensor
        return payload, known["envelope"]
    except (SafetensorError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise WireError(f"not a fedit payload: {error}") from None


def packed_size(payload: Payload, envelope: Mapping[str, Any]) -> int:
    """len(pack(payload, envelope)) without copying a tensor."""
    header: dict[str, Any] = {"__metadata__": _metadata(payload, envelope)}
    offset = 0
    flat = _flat(payload)
    for name, tensor in sorted(flat.items(), key=lambda item: (-item[1].element_size(), item[0])):
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + offset


def _flat(payload: Payload) -> Tree:
    return {
        f"{role}/{n}": t.contiguous() for role, tree in payload.items() for n, t in tree.items()
    }


def _metadata(payload: Payload, envelope: Mapping[str, Any]) -> dict[str, str]:
    known = {"roles": list(payload), "envelope": dict(envelope)}
    return {"fedit": json.dumps(known, separators=(",", ":"))}
