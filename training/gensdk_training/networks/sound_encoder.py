"""What hears a sound: an encoder over its log-mel spectrogram, and what training changes in such."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.networks.image_pairs import direction
from gensdk_training.networks.log_mel import LogMel, without_autocast

MEAN, SPREAD = -8.0, 3.0
"""Of logarithms of powers of speech, about, so that layers see numbers near 0."""
HALVINGS = 3


class SoundEncoder(nn.Module):
    """A sound to a direction: strided convolutions over its log-mel spectrogram, and of what they find the mean
    and the most over time: it hardly matters when something was said, nor how long the silence is behind it."""

    def __init__(self, sample_rate: int, *, bands: int, channels: int, features: int) -> None:
        super().__init__()
        self.log_mel = LogMel(sample_rate, bands)
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in [channels * 2**level for level in range(HALVINGS)]:
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * inputs * -(-bands // 2**HALVINGS), features)

    def forward(self, sounds: Tensor) -> Tensor:
        """`sounds` [B, samples] in [-1, 1] to [B, features] of length 1."""
        return self.heard(self.log_mel(sounds))

    def heard(self, spectrogram: Tensor) -> Tensor:
        """The same of what :class:`LogMel` makes, [B, bands, pieces]."""
        # PyTorch's convolutions in bfloat16 gave NaN for gradients of these weights on the CPU.
        with without_autocast(spectrogram):
            seen = self.body((spectrogram[:, None] - MEAN) / SPREAD)
        both = torch.cat((seen.mean(dim=3), seen.amax(dim=3)), dim=1)
        return direction(self.head(both.flatten(1)))


def masked(spectrogram: Tensor, *, bands: int, pieces: int) -> Tensor:
    """`spectrogram` [B, bands, pieces] with a run of up to so many bands, and of pieces, at its quietest in each
    (SpecAugment, Park et al. 2019, arXiv 1904.08779, section 2)."""
    low = spectrogram.amin(dim=(1, 2), keepdim=True)
    for axis, most in ((1, bands), (2, pieces)):
        size = spectrogram.shape[axis]
        widths = torch.rand(len(spectrogram), device=spectrogram.device) * min(most, size)
        starts = torch.rand(len(spectrogram), device=spectrogram.device) * (size - widths)
        places = torch.arange(size, device=spectrogram.device)
        hidden = (places >= starts[:, None]) & (places < (starts + widths)[:, None].floor())
        shape = [len(spectrogram), 1, 1]
        shape[axis] = size
        spectrogram = torch.where(hidden.reshape(shape), low, spectrogram)
    return spectrogram


def stretched(spectrogram: Tensor, *, bands: float, time: float) -> Tensor:
    """`spectrogram` [B, bands, pieces], each one stretched by a factor of its own in ``[1 - x, 1 + x]`` on each
    axis: longer or shorter throats and words (Jaitly & Hinton 2013, "Vocal Tract Length Perturbation")."""
    count, device = len(spectrogram), spectrogram.device
    factors = [1 + (2 * torch.rand(count, device=device) - 1) * most for most in (time, bands)]
    across, down = (1 / factor for factor in factors)
    grid = functional.affine_grid(_scaling(across, down), [count, 1, *spectrogram.shape[1:]], align_corners=False)
    moved = functional.grid_sample(spectrogram[:, None], grid, padding_mode="border", align_corners=False)
    return moved[:, 0]


def tilted(spectrogram: Tensor, most: float) -> Tensor:
    """`spectrogram` [B, bands, pieces], each one with low bands louder and high ones quieter, or the other way, by
    up to `most` nats at the ends: other microphones."""
    slope = torch.linspace(-1, 1, spectrogram.shape[1], device=spectrogram.device)[:, None]
    tilts = (2 * torch.rand(len(spectrogram), 1, 1, device=spectrogram.device) - 1) * most
    return spectrogram + tilts * slope


def _scaling(across: Tensor, down: Tensor) -> Tensor:
    """Affine maps [B, 2, 3] that scale around the beginning of both axes."""
    none = torch.zeros_like(across)
    return torch.stack(
        (torch.stack((across, none, across - 1), dim=1), torch.stack((none, down, down - 1), dim=1)), dim=1
    )
