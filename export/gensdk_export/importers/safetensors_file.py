"""A safetensors file as untrusted input: a length, a JSON header, and the bytes that it points into."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gensdk_export.importers.import_report import check_size
from gensdk_runtime.errors import InputError

MAX_ENTRIES = 100_000
"""Tensors of a file."""
MAX_HEADER_BYTES = 2**24
MAX_DIMENSIONS = 8
"""Of a tensor."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class SafetensorsFile:
    """The `tensors` of a file by name, the texts in its header by key, and the SHA-256 of its bytes in hex."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    sha256: str


def read_safetensors(path: Path, most: int) -> SafetensorsFile:
    """What is in the file `path`, which is read once; :class:`InputError` where it has over `most` bytes, or is no
    safetensors file."""
    check_size(path, most)
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise InputError(f"can't read {str(path)!r}: {failure.strerror or failure}") from None
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise InputError(f"{path}: expected a safetensors file, got something else")
    try:
        header = json.loads(data[8 : 8 + length])
        said = header.get("__metadata__") or {}
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if len(entries) > MAX_ENTRIES:
            raise ValueError(f"{len(entries)} tensors")
        _refuse_overlaps(entries)
        tensors = {str(name): _tensor(data, 8 + length, entry) for name, entry in entries.items()}
        metadata = {str(key): str(text) for key, text in said.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as failure:
        raise InputError(f"{path}: not readable as safetensors ({str(failure)[:120]}); save it again") from None
    return SafetensorsFile(tensors, metadata, hashlib.sha256(data).hexdigest())


def _tensor(data: bytes, start: int, entry: Mapping[str, Any]) -> Tensor:
    first, last = _whole(entry["data_offsets"])
    shape, kind = _whole(entry["shape"]), str(entry["dtype"])
    if kind not in _DTYPES:
        raise ValueError(f"a tensor is of the type {kind[:20]}, which is not read, only {', '.join(_DTYPES)}")
    dtype = _DTYPES[kind]
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a tensor has {len(shape)} dimensions, at most {MAX_DIMENSIONS} are read")
    if not 0 <= first <= last <= len(data) - start or min(shape, default=0) < 0:
        raise ValueError("a tensor lies outside the file")
    if first == last:
        return torch.empty(shape, dtype=dtype) if 0 in shape else torch.empty(0, dtype=dtype).reshape(shape)
    flat = torch.frombuffer(bytearray(data[start + first : start + last]), dtype=dtype)
    return flat.reshape(shape)


def _refuse_overlaps(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `ValueError` where tensors share bytes: a small file could stand for any amount of memory."""
    end = 0
    for first, last in sorted(_whole(entry["data_offsets"]) for entry in entries.values()):
        if first < end and first < last:
            raise ValueError("tensors lie over each other")
        end = max(end, last)


def _whole(said: Any) -> list[int]:
    """A list of whole numbers; `ValueError` for anything else."""
    if not isinstance(said, list) or not all(type(each) is int for each in said):
        raise ValueError(f"expected whole numbers, got {str(said)[:40]}")
    return said
