"""Low-rank changes (LoRA) merged into the networks of a pipeline, before anything is exported.

Each key of a file must fit a layer of the pipeline: what fits none is named, and refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gensdk_export.importers.diffusers.lora_files import Factors, Lora, LoraFile, read_lora
from gensdk_export.importers.import_report import Guess
from gensdk_runtime.errors import ExportError, InputError

Layer = nn.Linear | nn.Conv2d
MAX_FILES = 16
OF_KOHYA: Mapping[str, str] = {"text_encoder": "te"}
"""What kohya calls the parts of a pipeline in its keys, where it is another name: ``lora_te_``."""
OLD_NAMES: tuple[tuple[str, str], ...] = (
    (".processor.", "."),
    ("self_attn.to_q", "self_attn.q_proj"),
    ("self_attn.to_k", "self_attn.k_proj"),
    ("self_attn.to_v", "self_attn.v_proj"),
    ("self_attn.to_out", "self_attn.out_proj"),
)
"""What older versions of diffusers called layers, and what they are called."""
TEXT_MODEL = "text_model."
IN_FRONT = ("base_model.model.", TEXT_MODEL)
"""What may stand before the names of layers: of PEFT, and of CLIP in some versions of transformers."""


@dataclass(frozen=True)
class LoraFiles:
    """Files to merge, read; before networks are loaded, for what can be refused without them."""

    read: tuple[Lora, ...] = ()

    @classmethod
    def of(cls, files: Sequence[LoraFile]) -> LoraFiles:
        """Reads them; raises as :func:`read_lora` does, and :class:`InputError` for over MAX_FILES."""
        if len(files) > MAX_FILES:
            raise InputError(f"expected at most {MAX_FILES} LoRA files, got {len(files)}")
        return cls(tuple(read_lora(file) for file in files))

    def merge(self, networks: Mapping[str, nn.Module], denoiser: str) -> tuple[Guess, ...]:
        """Adds the changes to the weights of `networks`, by the names of diffusers; `denoiser`: the one that keys
        without a part's name are of. Returns what is told of it.

        All files are looked through before a weight is changed. Raises :class:`InputError` where a key fits no
        layer, or a factor not its weight, and :class:`ExportError` where a merged weight is not finite.
        """
        layers = _Layers(networks, denoiser)
        planned = [(lora, factors, layers.find(lora, factors)) for lora, factors in self._all()]
        named: dict[tuple[int, int], str] = {}
        for lora, factors, layer in planned:
            _check_shape(lora, factors, layer)
            other = named.setdefault((id(lora), id(layer)), factors.layer)
            if other != factors.layer:
                raise InputError(
                    f"{lora.file.path}: {other[:120]!r} and {factors.layer[:120]!r} are one layer, which would be "
                    "changed twice; save it again"
                )
        for lora, factors, layer in planned:
            _add(lora, factors, layer)
        return tuple(
            Guess(
                "LoRA", f"{each.file.path.name} merged", f"weight {each.file.weight:g}, {len(each.factors)} layers"
            )
            for each in self.read
        )

    def provenance(self) -> dict[str, Any]:
        """What the manifest keeps: names, SHA-256 and weights of the files; nothing where there are none."""
        return {"lora": [lora.told() for lora in self.read]} if self.read else {}

    def _all(self) -> Iterator[tuple[Lora, Factors]]:
        for lora in self.read:
            for factors in lora.factors.values():
                yield lora, factors


class _Layers:
    """The layers that changes may be for, by the names that files have for them."""

    def __init__(self, networks: Mapping[str, nn.Module], denoiser: str) -> None:
        self._networks = networks
        self._denoiser = denoiser
        self._by_name: dict[str, dict[str, Layer]] = {}
        self._underscored: dict[str, dict[str, Layer]] = {}
        for part, network in networks.items():
            own = {
                name.removeprefix(TEXT_MODEL): layer
                for name, layer in network.named_modules()
                if isinstance(layer, Layer)
            }
            self._by_name[part] = own
            self._underscored[part] = {name.replace(".", "_"): layer for name, layer in own.items()}

    def find(self, lora: Lora, factors: Factors) -> Layer:
        """The layer; :class:`InputError` that names what fits none."""
        layer = self._of_kohya(factors.layer) or self._of_diffusers(factors.layer)
        if layer is None:
            parts = " or ".join(self._networks)
            raise InputError(
                f"{lora.file.path}: {factors.layer[:120]!r} fits no layer of this model's {parts}; it is a LoRA "
                "for another model"
            )
        return layer

    def _of_kohya(self, name: str) -> Layer | None:
        for part, layers in self._underscored.items():
            head = f"lora_{OF_KOHYA.get(part, part)}_"
            if name.startswith(head):
                bare = name.removeprefix(head)
                return layers.get(bare.removeprefix(TEXT_MODEL.replace(".", "_")))
        return None

    def _of_diffusers(self, name: str) -> Layer | None:
        part, _, rest = name.partition(".")
        if part not in self._networks:
            part, rest = self._denoiser, name
        for old, new in OLD_NAMES:
            rest = rest.replace(old, new)
        for head in IN_FRONT:
            rest = rest.removeprefix(head)
        layers = self._by_name[part]
        return layers.get(rest) or (layers.get(f"{rest}.0") if rest.endswith(".to_out") else None)


def _check_shape(lora: Lora, factors: Factors, layer: Layer) -> None:
    """The factors' product has the weight's shape; :class:`InputError` if not."""
    weight, down, up = layer.weight, factors.down, factors.up
    fits = up.flatten(1).shape == (weight.shape[0], down.shape[0])
    fits = fits and down[0].numel() == weight[0].numel() and getattr(layer, "groups", 1) == 1
    if fits and down.ndim == weight.ndim == 4:
        fits = down.shape[1:] == weight.shape[1:]
    if not fits:
        raise InputError(
            f"{lora.file.path}: layer {factors.layer[:120]!r} has a weight of the shape {list(weight.shape)}, "
            f"which factors {list(down.shape)} and {list(up.shape)} do not fit; it is a LoRA for another model"
        )


def _add(lora: Lora, factors: Factors, layer: Layer) -> None:
    """W += weight * alpha / r * up @ down, in float32; one layer's change is in memory at a time."""
    weight = layer.weight
    change = factors.up.float().flatten(1) @ factors.down.float().flatten(1)
    with torch.no_grad():
        weight.add_(change.reshape(weight.shape), alpha=lora.file.weight * factors.scale)
    if not bool(torch.isfinite(weight).all()):
        raise ExportError(
            f"{lora.file.path}: layer {factors.layer[:120]!r} is not finite once it is merged; take a smaller "
            "weight"
        )
