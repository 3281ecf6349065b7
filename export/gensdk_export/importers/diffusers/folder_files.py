"""The files of a diffusers folder: configurations as JSON, weights by the libraries themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from gensdk_export.importers.diffusers.scheduler import INSTALL
from gensdk_export.importers.import_report import check_size
from gensdk_runtime.errors import ExportError, InputError, UnavailableError

MAX_JSON_BYTES = 2**20
MAX_WEIGHT_BYTES = 2**32
"""Of one network."""
WEIGHTS = ("diffusion_pytorch_model*.safetensors", "model*.safetensors")
"""What diffusers and transformers call them."""


def read_json(path: Path) -> Mapping[str, Any]:
    """The object in a file; :class:`InputError` where there is none, or one over a limit."""
    if not path.is_file():
        raise InputError(f"expected {path.name} of a diffusers folder, {str(path)!r} is missing")
    check_size(path, MAX_JSON_BYTES)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not readable as JSON; save the pipeline again") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, got {type(data).__name__}")
    return data


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration a manifest keeps: all but private entries and numbers that JSON has not."""
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and not (isinstance(value, float) and not math.isfinite(value))
    }


def refuse_other_parts(folder: Path, index: Mapping[str, Any], parts: Mapping[str, str]) -> None:
    """:class:`ExportError` unless the parts of a pipeline are of these classes, as its `index` says."""
    for name, wanted in parts.items():
        kind = index.get(name, (None, None))
        kind = kind[1] if isinstance(kind, list) and len(kind) == 2 else None
        if kind != wanted:
            raise ExportError(f"{folder}: expected {name} to be a {wanted}, got {str(kind)[:60]!r}")


def image_sides(sample_size: Any) -> tuple[int, int] | None:
    """(height, width) of a network's `sample_size`; None where it has none, :class:`InputError` for another
    kind."""
    sides = list(sample_size) if isinstance(sample_size, list | tuple) else [sample_size, sample_size]
    if sample_size is None:
        return None
    if not all(type(side) is int for side in sides) or len(sides) != 2:
        raise InputError(
            f"expected sample_size as a whole number or two, got {str(sample_size)[:40]!r} in unet/config.json"
        )
    return sides[0], sides[1]


def load_network(
    folder: Path, library: Literal["diffusers", "transformers"], kind: str, *, eager: bool = False
) -> nn.Module:
    """The network in float32 and eval mode, by its own library; nothing is fetched, and no pickle is read.

    `eager`: attention as plain operators, which can be exported. Raises :class:`InputError` without weights or
    with too large ones, :class:`ExportError` where the library can't load it, :class:`UnavailableError` without
    it.
    """
    files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    if not files:
        raise InputError(f"{folder}: no .safetensors weights; save the pipeline with safe_serialization=True")
    if sum(check_size(path, MAX_WEIGHT_BYTES) for path in files) > MAX_WEIGHT_BYTES:
        raise InputError(f"{folder}: expected at most {MAX_WEIGHT_BYTES} bytes of weights")
    try:
        made = getattr(import_module(library), kind)
    except (ImportError, RuntimeError) as failure:
        raise UnavailableError(
            f"importing a diffusers folder needs {library} ({str(failure).splitlines()[0][:120]}); {INSTALL}"
        ) from None
    options: dict[str, Any] = {"attn_implementation": "eager"} if eager else {}
    with refused(f"{folder}: {library} can't load it"):
        network = made.from_pretrained(str(folder), use_safetensors=True, local_files_only=True, **options)
    return cast(nn.Module, network.float().eval())


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turns what libraries raise, who raise whatever they meet, into one line."""
    try:
        yield
    except Exception as failure:
        raise ExportError(f"{what}: {' '.join(str(failure).split())[:200]}") from None
