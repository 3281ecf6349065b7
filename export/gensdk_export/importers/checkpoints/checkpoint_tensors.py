"""The tensors of a checkpoint, whatever they are wrapped in: found by the names of a network's layers.

People save a network by itself, or inside DataParallel (``module.``), ``torch.compile`` (``_orig_mod.``) and
AveragedModel (``n_averaged`` beside it), or with optimizers, other networks and averages in one dictionary. All of
them put a prefix before the names of its weights; so the prefix is looked for. Weights that a weight norm or a
spectral norm computes are computed once, from what those had saved.

Files are read with ``weights_only=True``, or as safetensors: no code in them runs.
"""

from __future__ import annotations

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
from gensdk_export.importers.safetensors_file import read_safetensors
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_training.weights_file import refuse_damage

MAX_BYTES = 2**31
MAX_TENSORS = 10_000
MAX_ENTRIES = 100_000
"""Of all dictionaries in a file together."""
MAX_DEPTH = 6
SAFETENSORS = ".safetensors"
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|state_dict)\.")
"""What is put before names by PyTorch and Lightning, and says nothing."""
AVERAGES = re.compile(r"(?:^|[._-])(?:ema|averaged?)(?:$|[._-])|_ema|ema_", re.IGNORECASE)
SAVE_WEIGHTS = "where it was made: torch.save(model.state_dict(), 'weights.pth')"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


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
    if path.suffix.lower() == SAFETENSORS:
        return read_safetensors(path, MAX_BYTES).tensors
    check_size(path, MAX_BYTES)
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
