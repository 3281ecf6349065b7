"""Features of a trained network as a measure of how alike two images look (Johnson et al. 2016; Ledig et al.
2017).

Pluggable: the convolutions of a classifier that was trained here (:mod:`gensdk_training.metrics.classifier`), or
VGG-19 where the user has its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_training.weights_file import check_weights_file, refuse_damage

VGG = "vgg19:"
_VGG_POOLS_AFTER = (
    2,
    7,
    16,
    25,
)  # layers of torchvision's vgg19().features before which an image was not yet halved
_VGG_MEAN, _VGG_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(nn.Module):
    """Convolutions with ReLU, each with `halved` True halving its result; gives the last of them."""

    def __init__(self, convolutions: list[tuple[Tensor, Tensor, bool]], *, photographs: bool) -> None:
        super().__init__()
        self.halved = tuple(halved for _, _, halved in convolutions)
        self.photographs = photographs
        for number, (weight, bias, _) in enumerate(convolutions):
            self.register_buffer(f"weight{number}", weight)
            self.register_buffer(f"bias{number}", bias)
        self.register_buffer("mean", torch.tensor(_VGG_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_VGG_STD).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to features [B, F, h, w]."""
        hidden = images
        if self.photographs:
            colour = images if images.shape[1] == 3 else images.repeat(1, 3, 1, 1)
            hidden = ((colour + 1) / 2 - self.get_buffer("mean")) / self.get_buffer("std")
        for number, halved in enumerate(self.halved):
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            hidden = torch.relu(functional.conv2d(hidden, weight, bias, padding=weight.shape[2] // 2))
            if halved and min(hidden.shape[2:]) > 1:
                hidden = functional.max_pool2d(hidden, 2)
        return hidden


@cache
def load_features(spec: str) -> Features:
    """The extractor that `spec` names: ``FILE.safetensors`` of a classifier trained here, or ``vgg19:FILE``.

    Of VGG-19 (torchvision's names; ``.safetensors``, or ``.pth`` read as plain weights) it takes the layers up to
    conv5_4 after its ReLU, as Ledig et al. do. Raises :class:`InputError` where the file is none of these.
    """
    path = Path(spec.removeprefix(VGG)).expanduser()
    weights = _read(path)
    if spec.startswith(VGG):
        names = sorted(
            int(name.split(".")[1]) for name in weights if name.startswith("features.") and name.endswith("weight")
        )
        return Features(_convolutions(path, weights, "features", names, _VGG_POOLS_AFTER), photographs=True)
    names = sorted(
        int(name.split(".")[1])
        for name, tensor in weights.items()
        if name.startswith("hidden.") and name.endswith("weight") and tensor.dim() == 4
    )
    return Features(_convolutions(path, weights, "hidden", names, tuple(names[1:])), photographs=False)


def _convolutions(
    path: Path, weights: Mapping[str, Tensor], prefix: str, numbers: list[int], halved: tuple[int, ...]
) -> list[tuple[Tensor, Tensor, bool]]:
    if not numbers:
        raise InputError(f"{path}: no convolutions named {prefix}.N.weight; is it the right file of weights?")
    try:
        return [
            (weights[f"{prefix}.{n}.weight"].float(), weights[f"{prefix}.{n}.bias"].float(), n in halved)
            for n in numbers
        ]
    except KeyError as missing:
        raise InputError(f"{path}: {missing} is missing; is it the right file of weights?") from None


def _read(path: Path) -> Mapping[str, Tensor]:
    check_weights_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        refuse_damage(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as failure:
        reason = str(failure).splitlines()[0][:120] if str(failure) else type(failure).__name__
        raise InputError(f"{path}: can't read the extractor's weights ({reason})") from None
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path}: expected a dict of tensors; save the extractor's state_dict()")
    return loaded
