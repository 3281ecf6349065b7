"""Files of low-rank changes (LoRA) of diffusers, PEFT and kohya: factors by the names of layers.

Hu et al. (2021), "LoRA: Low-Rank Adaptation of Large Language Models": a layer's weight W becomes
W + weight * alpha / rank * up @ down. Files differ in how they call the factors, and in where alpha lies: beside
the factors (kohya), in the file's header (diffusers), or in a file beside it (PEFT: ``adapter_config.json``).

It does not: take other decompositions (DoRA, LoHa, LoKr, LoCon's third factor), changes of biases, or pickle
files.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gensdk_export.importers.safetensors_file import SafetensorsFile, read_safetensors
from gensdk_runtime.errors import InputError

MAX_FILE_BYTES = 2**31
MAX_WEIGHT = 1000.0
MAX_ALPHA = 1e6
SUFFIX = ".safetensors"
HEADER = "lora_adapter_metadata"
"""Where diffusers puts the settings of PEFT, as JSON: ``unet.lora_alpha`` and others."""
OF_PEFT, BESIDE = "base_model", "adapter_config.json"
"""What the layers' names of PEFT itself begin with, and its file with their alpha."""
MAX_BESIDE_BYTES = 2**20
FACTORS = re.compile(
    r"(?P<layer>.+?)(?:"
    r"\.lora_(?P<peft>[AB])(?:\.default)?\.weight"
    r"|[._]lora(?:_linear_layer)?[._](?P<side>down|up)\.weight"
    r"|\.(?P<alpha>alpha)"
    r")"
)
"""What files call the factors of a layer, and its alpha."""
OTHERS: Mapping[str, str] = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "a LoCon of three factors",
    "diff": "a change of whole weights",
    "bias": "a change of biases",
}
"""What other names mean, by a part of them."""
PLAIN_PEFT: Mapping[str, tuple[Any, str]] = {
    "use_dora": (False, "DoRA"),
    "lora_bias": (False, "a change of biases"),
    "alora_invocation_tokens": (None, "a change that tokens switch on"),
}
"""Settings of PEFT that must be as they stand here, and what they mean otherwise."""


@dataclass(frozen=True)
class LoraFile:
    """A file of low-rank changes, and how much of them is merged: 1 as they were trained, 0 nothing."""

    path: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and abs(self.weight) <= MAX_WEIGHT):
            raise InputError(
                f"{self.path}: expected a weight of -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, got {self.weight}"
            )

    @classmethod
    def parse(cls, text: str) -> LoraFile:
        """``FILE.safetensors``, or ``FILE.safetensors:WEIGHT``; :class:`InputError` for other texts."""
        file, colon, number = text.rpartition(":")
        if not colon or text.lower().endswith(SUFFIX):  # a colon may stand in a path too
            return cls(Path(text))
        try:
            weight = float(number)
        except ValueError:
            raise InputError(
                f"expected --lora FILE{SUFFIX}, or FILE{SUFFIX}:WEIGHT with a number, got {text[:80]!r}"
            ) from None
        return cls(Path(file), weight)


@dataclass(frozen=True)
class Factors:
    """The change of one layer: `down` [r, ...] and `up` [..., r] in the file's precision, which `scale` =
    alpha / r goes with."""

    layer: str
    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class Lora:
    """What a file holds: the `factors` of its layers by the layers' names in the file; for errors `file`."""

    file: LoraFile
    sha256: str
    factors: Mapping[str, Factors]

    def told(self) -> dict[str, Any]:
        """What a manifest keeps of it."""
        return {"file": self.file.path.name, "sha256": self.sha256, "weight": self.file.weight}


def read_lora(file: LoraFile) -> Lora:
    """Reads the file; :class:`InputError` where it is no safetensors file, holds what is no LoRA, or not finite
    numbers."""
    path = file.path
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"expected a {SUFFIX} file of a LoRA, got {str(path)!r}; pickle files are not read")
    read = read_safetensors(path, MAX_FILE_BYTES)
    if not read.tensors:
        raise InputError(f"{path}: expected the factors of a LoRA, got no tensors")
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read.tensors.items():
        layer, part = _meaning(path, key)
        _check_numbers(path, key, tensor)
        if part in parts.setdefault(layer, {}):
            raise InputError(f"{path}: layer {layer[:120]!r} has its factor {part} twice")
        parts[layer][part] = tensor
    peft = _Peft(path, _settings(path, read, any(layer.startswith(f"{OF_PEFT}.") for layer in parts)))
    factors = {layer: _factors(path, layer, found, peft) for layer, found in parts.items()}
    peft.refuse_unused()
    return Lora(file, read.sha256, factors)


def _meaning(path: Path, key: str) -> tuple[str, str]:
    """The layer's name, and ``down``, ``up`` or ``alpha``."""
    found = FACTORS.fullmatch(key)
    if found is None or "lora_mid" in key:
        kind = next((kind for part, kind in OTHERS.items() if part in key), "nothing of a LoRA")
        raise InputError(
            f"{path}: {key[:120]!r} is {kind}; only factors lora_A and lora_B, or lora_down and lora_up, with "
            "alpha can be merged"
        )
    if found["alpha"]:
        return found["layer"], "alpha"
    return found["layer"], found["side"] or {"A": "down", "B": "up"}[found["peft"]]


def _check_numbers(path: Path, key: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point() and tensor.numel() != 1:
        raise InputError(f"{path}: {key[:120]!r} holds {tensor.dtype}; expected floats")
    if not bool(torch.isfinite(tensor.float()).all()):
        raise InputError(f"{path}: {key[:120]!r} is NaN or infinite; the LoRA was not trained well, take another")


def _factors(path: Path, layer: str, found: Mapping[str, Tensor], peft: _Peft) -> Factors:
    missing = [part for part in ("down", "up") if part not in found]
    if missing:
        raise InputError(f"{path}: layer {layer[:120]!r} has no factor {' and no '.join(missing)}; save it again")
    down, up = found["down"], found["up"]
    rank = down.shape[0] if down.ndim else 0
    if not rank or down.ndim not in (2, 4) or up.ndim not in (2, 4) or up.flatten(1).shape[1] != rank:
        raise InputError(
            f"{path}: layer {layer[:120]!r} has factors of the shapes {list(down.shape)} and {list(up.shape)}; "
            "expected [r, in] and [out, r], for convolutions with sides behind"
        )
    alpha = found.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise InputError(f"{path}: layer {layer[:120]!r} has an alpha of {alpha.numel()} numbers; expected one")
    scale = peft.scale(layer, rank) if alpha is None else _alpha(path, layer, float(alpha)) / rank
    return Factors(layer, down, up, scale)


def _alpha(path: Path, layer: str, alpha: Any) -> float:
    """`alpha` if it is a number of a size that it may have; :class:`InputError` if not."""
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not -MAX_ALPHA <= alpha <= MAX_ALPHA:
        raise InputError(
            f"{path}: expected a number of {-MAX_ALPHA:g} to {MAX_ALPHA:g} as alpha of {layer[:80]!r}, got "
            f"{repr(alpha)[:40]}"
        )
    return float(alpha)


def _settings(path: Path, read: SafetensorsFile, of_peft: bool) -> dict[str, Any]:
    """The settings of PEFT by the prefix of the layers that they are for: out of the header, or, of a file that
    PEFT wrote, out of the one beside it. :class:`InputError` where that is missing, since it alone has alpha."""
    if HEADER in read.metadata:
        return _object(path, f"{HEADER} of its header", read.metadata[HEADER])
    if not of_peft:
        return {}
    beside = path.with_name(BESIDE)
    try:
        with beside.open("rb") as file:
            text = file.read(MAX_BESIDE_BYTES + 1)
    except OSError as failure:
        raise InputError(
            f"{path}: it is of PEFT, whose alpha lies in {BESIDE} beside it, which can't be read "
            f"({failure.strerror or failure}); put it there"
        ) from None
    if len(text) > MAX_BESIDE_BYTES:
        raise InputError(f"{beside}: expected at most {MAX_BESIDE_BYTES} bytes; give the file that PEFT wrote")
    said = _object(path, f"{BESIDE} beside it", text)
    return {f"{OF_PEFT}.{name}": value for name, value in said.items()}


def _object(path: Path, what: str, text: str | bytes) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise InputError(f"{path}: expected {what} as an object in JSON; save it again")
    return said


class _Peft:
    """The settings of PEFT, by the prefix of the layers that they are for."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings = settings
        self._used: set[tuple[str, str]] = set()
        self._asked: dict[str, str] = {}
        for name, value in settings.items():
            wanted, kind = PLAIN_PEFT.get(name.rpartition(".")[2], (None, ""))
            if kind and value and value != wanted:
                raise InputError(f"{path}: its settings say {name[:60]}={str(value)[:40]}: it is {kind}")

    def scale(self, layer: str, rank: int) -> float:
        """alpha / rank, 1 where the settings say nothing."""
        part, _, name = layer.partition(".")
        self._asked.setdefault(part, layer)
        alpha = self._settings.get(f"{part}.lora_alpha", rank)
        for pattern, of in self._patterns(part):
            if name == pattern or name.endswith(f".{pattern}"):
                alpha = of
                self._used.add((part, pattern))
        checked = _alpha(self._path, layer, alpha)
        return checked / (math.sqrt(rank) if self._settings.get(f"{part}.use_rslora") else rank)

    def refuse_unused(self) -> None:
        """:class:`InputError` for an alpha of layers that the file does not have."""
        parts = {name.rpartition(".")[0].partition(".")[0] for name in self._settings}
        without = [layer for part, layer in self._asked.items() if part not in parts]
        unused = sorted(
            name for name in self._settings if f".{name}".endswith(".lora_alpha") and name[:-11] not in self._asked
        )
        if without and unused:
            raise InputError(
                f"{self._path}: its header has {unused[0][:60]!r}, which is no layer's of it, and no alpha of "
                f"{without[0][:80]!r}; save it again"
            )
        for part in sorted(parts):
            for pattern, _ in self._patterns(part):
                if (part, pattern) not in self._used:
                    what = f"its settings have an alpha of {pattern[:80]!r}, which is no layer of it"
                    raise InputError(f"{self._path}: {what}; save it again")

    def _patterns(self, part: str) -> Iterator[tuple[str, Any]]:
        """Names of layers, or their ends, with an alpha of their own."""
        own = self._settings.get(f"{part}.alpha_pattern") or {}
        if not isinstance(own, dict):
            raise InputError(f"{self._path}: expected {part[:40]}.alpha_pattern of its settings as an object")
        for pattern, alpha in own.items():
            yield pattern.removeprefix("^"), alpha
