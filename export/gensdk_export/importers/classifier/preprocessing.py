"""The preprocessing of a classifier: an RGB image in [-1, 1] to its range, normalized, in its order and layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gensdk_export.importers.classifier.network import OnnxNetwork
from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx.meaning import Picture
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import Float32

LARGEST = 1e6


@dataclass(frozen=True)
class Preprocessing:
    """``(image in the picture's range - mean) / std``, blue first where `bgr`, in the picture's layout."""

    picture: Picture
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool

    @classmethod
    def of(
        cls, picture: Picture, mean: Sequence[float] | None, std: Sequence[float] | None, *, bgr: bool
    ) -> Preprocessing:
        """One number for all channels, or one for each; :class:`InputError` for others."""
        channels = picture.channels or 3
        if bgr and channels != 3:
            raise InputError(f"--bgr is the order of three channels, and the model takes {channels}")
        each = [
            _each(given, what, channels, otherwise)
            for given, what, otherwise in ((mean, "--mean", 0.0), (std, "--std", 1.0))
        ]
        if min(each[1]) < 1 / LARGEST:
            raise InputError(f"expected --std of numbers above 0, got {list(each[1])}")
        return cls(picture, each[0], each[1], bgr)

    def guesses(self, unsaid: bool) -> list[Guess]:
        """What was taken for granted."""
        told = []
        if unsaid:
            reason = "nothing in the file tells; many classifiers of photographs want them"
            told.append(Guess("mean and deviation", "none", reason, "--mean, --std"))
        if not self.bgr and len(self.mean) == 3:
            told.append(Guess("order of colours", "red first", "the usual one", "--bgr"))
        return told

    def to_dict(self) -> dict[str, object]:
        """For the model card."""
        low_high = list(self.picture.value_range)
        return {"range": low_high, "mean": list(self.mean), "std": list(self.std), "bgr": self.bgr}

    def seen(self, images: Float32) -> Float32:
        """float32 [B, C, H, W] in [-1, 1] as the file takes it, in NumPy, step by step."""
        low, high = self.picture.value_range
        column = (1, -1, 1, 1)
        whole = (images.astype(np.float64) + 1) / 2 * (high - low) + low
        whole = (whole - np.reshape(self.mean, column)) / np.reshape(self.std, column)
        whole = whole[:, ::-1] if self.bgr else whole
        ordered = whole if self.picture.layout == "nchw" else whole.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(ordered, np.float32)

    def module(self) -> nn.Module:
        """The same in PyTorch, but for the layout: one convolution, a pixel large."""
        low, high = self.picture.value_range
        channels = len(self.mean)
        scale = [(high - low) / 2 / std for std in self.std]
        shift = [((high + low) / 2 - mean) / std for mean, std in zip(self.mean, self.std, strict=True)]
        order = list(reversed(range(channels))) if self.bgr else list(range(channels))
        conv = nn.Conv2d(channels, channels, 1)
        weight = torch.zeros(channels, channels, 1, 1)
        weight[range(channels), order, 0, 0] = torch.tensor(scale)[order]
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = nn.Parameter(torch.tensor(shift)[order], requires_grad=False)
        return conv


class Features(nn.Module):
    """The features of one layer, of images as a bundle has them."""

    def __init__(self, preprocessing: Preprocessing, network: OnnxNetwork, *, last: bool, flat: bool) -> None:
        """`last`: the file has channels last; `flat`: it has one place alone."""
        super().__init__()
        self.preprocessing = preprocessing.module()
        self.network = network
        self.swaps = preprocessing.picture.layout == "nhwc"
        self.last, self.flat = last, flat

    def in_file(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to the features as the file has them."""
        seen = self.preprocessing(images)
        features: Tensor = self.network(seen.permute(0, 2, 3, 1) if self.swaps else seen)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1] to [B, K, h, w], or [B, K] where there is one place alone."""
        features = self.in_file(images)
        features = features.permute(0, 3, 1, 2) if self.last else features
        return features.flatten(1) if self.flat else features


def _each(given: Sequence[float] | None, what: str, channels: int, otherwise: float) -> tuple[float, ...]:
    numbers = [otherwise] if given is None else [float(number) for number in given]
    numbers = numbers * channels if len(numbers) == 1 else numbers
    if len(numbers) != channels or not all(math.isfinite(each) and abs(each) <= LARGEST for each in numbers):
        raise InputError(f"expected {what} as one number or {channels}, got {numbers[:8]}")
    return tuple(numbers)
