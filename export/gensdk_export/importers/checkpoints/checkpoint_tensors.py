"""The tensors of a checkpoint, whatever they are wrapped in: found by the names of a network's layers.

People save a network by itself, or inside DataParallel (``module.``), ``torch.compile`` (``_orig_mod.``) and
AveragedModel (``n_averaged`` beside it), or with optimizers, other networks and averages in one dictionary. All of
them put a prefix before the names of its weights; so the prefix is looked for. Weights that a weight norm or a
spectral norm computes are computed once, from what those had saved.

Files are read with ``weights_only=True``, or as safetensors: no code in them runs.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gensdk_export.importers.checkpoints.weight_norms import fold_norms
from gensdk_export.importers.import_report import Guess, check_size
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_training.weights_file import refuse_damage

MAX_BYTES = 2**31
MAX_TENSORS = 10_000
MAX_ENTRIES = 100_000
"""Of all dictionaries in a file together."""
MAX_DEPTH = 6
MAX_HEADER_BYTES = 2**24
SAFETENSORS = ".safetensors"
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|state_dict)\.")
"""What is put before names by PyTorch and Lightning, and says nothing."""
AVERAGES = re.compile(r"(?:^|[._-])(?:ema|averaged?)(?:$|[._-])|_ema|ema_", re.IGNORECASE)
SAVE_WEIGHTS = "where it was made: torch.save(model.state_dict(), 'weights.pth')"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
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
class Weights:
    """The `tensors` of one network by its own names, floats in float32; `guesses` say where they were found."""

    tensors: Mapping[str, Tensor]
    guesses: tuple[Guess, ...]


def read_weights(path: Path, heads: Callable[[Mapping[str, Tensor]], list[str]], network: str | None) -> Weights:
    """The weights of one network in the file `path`.

    `heads` tells what stands before the names of each network that fits, "" for nothing; `network`: which one, by
    a part of what stands there. Raises :class:`InputError` for a file that holds no tensors or more than its bytes
    can, and where several networks fit.
    """
    flat = dict(_flat(path, _read(path)))
    if not flat:
        raise InputError(f"{path}: expected a state dict, tensors by name, got none")
    for name, tensor in flat.items():
        _check(path, name, tensor)
    folded, norms = fold_norms(path, flat)
    head, reason = _choose(path, heads(folded), network)
    found = {name.removeprefix(head): tensor for name, tensor in folded.items() if name.startswith(head)}
    if len(found) > MAX_TENSORS:
        raise InputError(f"{path}: expected a state dict of 1 to {MAX_TENSORS} tensors, got {len(found)}")
    guesses: tuple[Guess, ...] = ()
    if _named(head):
        guesses += (Guess("weights", _named(head), reason, "--network"),)
    kinds = sorted({str(each.dtype).removeprefix("torch.") for each in found.values() if each.is_floating_point()})
    if kinds not in ([], ["float32"]):
        guesses += (Guess("numbers", "float32", f"the file has {', '.join(kinds)}; what they rounded stays"),)
    floats = {name: each.float() if each.is_floating_point() else each for name, each in found.items()}
    return Weights(floats, (*guesses, *norms))


def _read(path: Path) -> Any:
    check_size(path, MAX_BYTES)
    if path.suffix.lower() == SAFETENSORS:
        return _safetensors(path)
    _refuse_archive(path)
    refuse_damage(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as failure:  # torch raises whatever pickle and zip files lead to
        text = str(failure).strip()
        held = _GLOBAL.search(text)
        if held is not None:
            reason = (
                f"it holds a pickled {held[1][:80]}, a whole module or settings, which is code; {SAVE_WEIGHTS}"
            )
        else:
            reason = f"it can't be read as one: {text.splitlines()[0][:160] if text else type(failure).__name__}"
        raise InputError(f"{path}: expected a state dict of tensors alone, {reason}") from None


def _refuse_archive(path: Path) -> None:
    """:class:`InputError` for TorchScript, and for an archive that unpacks to more than it takes."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # an older format, or none
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise InputError(f"{path}: it is a TorchScript archive, which is code; {SAVE_WEIGHTS}")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size:
        raise InputError(f"{path}: it unpacks to {unpacked} bytes, more than its own; don't trust this file")


def _flat(path: Path, loaded: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in dictionaries within dictionaries, their keys joined by dots."""
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: expected a state dict of tensors, got {type(loaded).__name__}")
    stack: list[tuple[str, Any, int]] = [("", loaded, 0)]
    entries = 0
    while stack:
        head, mapping, depth = stack.pop()
        entries += len(mapping)
        if entries > MAX_ENTRIES:
            raise InputError(f"{path}: expected at most {MAX_ENTRIES} entries in all its dictionaries")
        for key, value in mapping.items():
            if isinstance(key, str) and isinstance(value, Tensor):
                yield head + key, value
            elif isinstance(key, str) and isinstance(value, Mapping) and depth < MAX_DEPTH:
                stack.append((f"{head}{key}.", value, depth + 1))


def _check(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.is_meta:
        raise InputError(
            f"{path}: tensor {name[:80]!r} has a shape but no values (it is on the meta device); load the weights "
            "into the model before it is saved"
        )
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise InputError(f"{path}: tensor {name[:80]!r} is sparse, quantized or complex; save it as plain floats")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{path}: tensor {name[:80]!r} claims more than the file holds; don't trust it")


def _choose(path: Path, heads: list[str], network: str | None) -> tuple[str, str]:
    """What stands before the names of the network that is meant, and why it is that one."""
    named = {_named(head): head for head in heads}
    if network is not None:
        fitting = [name for name in named if network in (name, *name.split("."))]
        if len(fitting) != 1:
            raise InputError(f"{path}: no network {network[:80]!r}{did_you_mean(network[:80], _listed(named))}")
        return named[fitting[0]], "--network says so"
    if not heads:
        return "", ""
    if len(heads) == 1:
        return heads[0], "the only network in the file that fits"
    averages = [head for head in heads if AVERAGES.search(head)]
    rest = {AVERAGES.sub("", _named(head)) for head in heads}
    if len(averages) == 1 and len(heads) == 2 and len(rest) <= 2:
        return averages[0], "the average, which is what samples best"
    names = ", ".join(_listed(named))
    raise InputError(f"{path}: it holds {len(heads)} networks that fit, {names}; say which with --network NAME")


def _listed(named: Mapping[str, str]) -> list[str]:
    return [name[:80] or "(the one without a name)" for name in named]


def _named(head: str) -> str:
    """What stands before the names, without what says nothing."""
    return WRAPPERS.sub("", head).rstrip(".")


def _safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: a length, a JSON header, and the bytes it points into."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise InputError(f"{path}: expected a safetensors file, got something else")
    try:
        header = json.loads(data[8 : 8 + length])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if len(entries) > MAX_ENTRIES:
            raise ValueError(f"{len(entries)} tensors")
        return {str(name): _tensor(data, 8 + length, entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as failure:
        raise InputError(f"{path}: not readable as safetensors ({str(failure)[:120]}); save it again") from None


def _tensor(data: bytes, start: int, entry: Mapping[str, Any]) -> Tensor:
    first, last = entry["data_offsets"]
    shape, dtype = [int(size) for size in entry["shape"]], _DTYPES[entry["dtype"]]
    if not 0 <= first <= last <= len(data) - start or min(shape, default=0) < 0:
        raise ValueError("a tensor lies outside the file")
    if first == last:
        return torch.empty(shape, dtype=dtype) if 0 in shape else torch.empty(0, dtype=dtype).reshape(shape)
    flat = torch.frombuffer(bytearray(data[start + first : start + last]), dtype=dtype)
    return flat.reshape(shape)
