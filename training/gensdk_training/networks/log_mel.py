"""The log-mel spectrogram as a layer: a windowed Fourier transform and bands, all of it constant matrices.

It exports to plain products of matrices, so what a model was trained to listen to is what it listens to
everywhere. Powers span many orders of magnitude: half precision would lose the quiet ones.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.media.spectrogram import mel_triangles

SECONDS, HOPS = 0.032, 2
"""Of a piece of sound, which stands still for about as long, and how many pieces begin in its time."""
FLOOR = 1e-5
"""Power that is added before the logarithm; a full-scale sine has power 1."""


class LogMel(nn.Module):
    """``log(1e-5 + M |F w x|^2)`` of a sound x, piece by piece: w Hann's window, F the Fourier transform, M the
    bands of :func:`gensdk_runtime.media.spectrogram.mel_triangles`.

    Pieces of `size` samples begin at every `hop`-th one, the first half of the first lying before the sound, where
    there is silence, as behind it. Each sound is brought to the loudness 1 of its loudest sample before, unless
    `levelled` is False, which a window wants whose loudness says something; silence stays silent. Nothing is
    learnt.
    """

    fp32_island: ClassVar[bool] = True
    waves: Tensor
    bands: Tensor

    def __init__(self, sample_rate: int, bands: int, *, levelled: bool = True) -> None:
        super().__init__()
        self.levelled = levelled
        self.size = max(4, HOPS * round(SECONDS * sample_rate / HOPS))
        self.hop = self.size // HOPS
        window = np.hanning(self.size + 1)[:-1]
        turns = np.outer(np.arange(1 + self.size // 2), np.arange(self.size)) * (2 * np.pi / self.size)
        waves = np.concatenate([np.cos(turns), np.sin(turns)]) * window / (window.sum() / 2)
        self.register_buffer("waves", torch.tensor(waves.T, dtype=torch.float32), persistent=False)
        matrix = mel_triangles(sample_rate, self.size, bands)
        self.register_buffer("bands", torch.tensor(matrix.T, dtype=torch.float32), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """`sounds` [B, samples] in [-1, 1] to [B, bands, 1 + samples // hop]."""
        scaled = sounds
        if self.levelled:
            scaled = sounds / torch.clamp(sounds.abs().amax(dim=1, keepdim=True), min=1e-6)
        count = 1 + sounds.shape[1] // self.hop
        behind = (count + HOPS - 1) * self.hop - self.size // 2 - sounds.shape[1]
        parts = functional.pad(scaled, (self.size // 2, behind)).reshape(-1, count + HOPS - 1, self.hop)
        pieces = torch.cat([parts[:, first : first + count] for first in range(HOPS)], dim=2)
        with without_autocast(sounds):
            cosines, sines = (pieces @ self.waves).chunk(2, dim=2)
            power = (cosines.square() + sines.square()) @ self.bands
        return torch.log(FLOOR + power).transpose(1, 2)


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Float32 in mixed precision; nothing where there is none, as in an export."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
