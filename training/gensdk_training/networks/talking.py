"""Networks of a talking face: what hears a window of sound, what paints the face, and what tells whether a mouth
goes with what is heard."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensdk_training.networks.image_pairs import ImageEncoder, direction
from gensdk_training.networks.log_mel import LogMel, without_autocast
from gensdk_training.networks.sound_encoder import MEAN, SPREAD

STEPS = 3
"""Strided convolutions over a window's spectrogram."""
PAIR_SCALE = 5.0
"""By which the expert's cosines are multiplied at the beginning; learnt from there."""


class WindowEncoder(nn.Module):
    """A window of sound to features: strided convolutions over its log-mel spectrogram, and one map of all places.

    When something is heard in the window counts, so nothing is pooled over time; how loud it is counts too, so
    that the window is not levelled.
    """

    def __init__(self, sample_rate: int, samples: int, *, bands: int, channels: int, features: int) -> None:
        super().__init__()
        self.log_mel = LogMel(sample_rate, bands, levelled=False)
        height, width = bands, 1 + samples // self.log_mel.hop
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in [channels * 2**level for level in range(STEPS)]:
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs, height, width = outputs, -(-height // 2), -(-width // 2)
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs * height * width, features)

    def forward(self, sounds: Tensor) -> Tensor:
        """`sounds` [B, samples] in [-1, 1] to [B, features]."""
        return self.heard(self.log_mel(sounds))

    def heard(self, spectrogram: Tensor) -> Tensor:
        """The same of what :class:`LogMel` makes, [B, bands, pieces]."""
        with without_autocast(spectrogram):  # as SoundEncoder, whose gradients were NaN in bfloat16
            seen = self.body((spectrogram[:, None] - MEAN) / SPREAD)
        features: Tensor = self.head(seen.flatten(1))
        return features


class FacePainter(nn.Module):
    """A U-Net over the lower half of a still face, whose way up is told by features of a sound what to draw (Perez
    et al. 2017, "FiLM": a scale and a shift of each feature).

    It draws the difference from the still face, at first none, so that an unknown face stays itself where nothing
    has to move; the upper half stays to the bit. (A mask that chooses between still face and drawn colours closed
    in the first steps, when drawn colours are bad ones, and never opened again.)
    """

    def __init__(self, image_channels: int, channels: int, depth: int, features: int) -> None:
        super().__init__()
        widths = [channels * min(2**level, 4) for level in range(depth)]
        self.down, self.up, self.told = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, width in zip([image_channels, *widths], widths, strict=False):
            self.down.append(_block(nn.Conv2d(before, width, 4, 2, 1, bias=False), width))
        below = widths[-1]
        for width in widths[-2::-1]:
            self.told.append(nn.Linear(features, 2 * below))
            self.up.append(_block(nn.ConvTranspose2d(below, width, 4, 2, 1, bias=False), width))
            below = 2 * width
        self.told.append(nn.Linear(features, 2 * below))
        self.last = nn.ConvTranspose2d(below, image_channels, 4, 2, 1)
        for weight in self.last.parameters():
            nn.init.zeros_(weight)

    def forward(self, faces: Tensor, features: Tensor) -> Tensor:
        """`faces` [B, C, H, W] in [-1, 1] and `features` [B, F] to frames [B, C, H, W] in [-1, 1]."""
        upper, lower = faces.tensor_split(2, dim=2)
        heard = torch.relu(features)
        skips, hidden = [], lower
        for down in self.down:
            hidden = down(hidden)
            skips.append(hidden)
        for up, told, skip in zip(self.up, self.told, skips[-2::-1], strict=False):
            hidden = torch.cat((up(_told(hidden, told(heard))), skip), dim=1)
        changed = lower + self.last(_told(hidden, self.told[-1](heard)))
        return torch.cat((upper, changed.clamp(-1.0, 1.0)), dim=2)


def _block(convolution: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.LeakyReLU(0.2))


class TalkingFace(nn.Module):
    """A still face and a window of sound to a frame: :class:`WindowEncoder`, then :class:`FacePainter`."""

    def __init__(self, listener: WindowEncoder, painter: FacePainter) -> None:
        super().__init__()
        self.listener, self.painter = listener, painter

    def forward(self, source: Tensor, audio: Tensor) -> Tensor:
        """`source` [B, C, H, W] and `audio` [B, samples], both in [-1, 1], to frames [B, C, H, W] in [-1, 1]."""
        frames: Tensor = self.painter(source, self.listener(audio))
        return frames


class SyncExpert(nn.Module):
    """Does this mouth go with this sound? The cosine of what is heard and what is seen, times a scale, plus a
    bias, both learnt, as a logit.

    The lower half of the face is seen, as in Prajwal et al. 2020, section 3.2. There the cosine itself is the
    probability, which leaves the loss at ln 2 where it begins, for long.
    """

    def __init__(self, listener: WindowEncoder, viewer: ImageEncoder) -> None:
        super().__init__()
        self.listener, self.viewer = listener, viewer
        self.scale, self.bias = nn.Parameter(torch.tensor(PAIR_SCALE)), nn.Parameter(torch.tensor(0.0))

    def forward(self, spectrogram: Tensor, images: Tensor) -> Tensor:
        """`spectrogram` [B, bands, pieces] and `images` [B, C, H, W] to the logits of all pairs, [B, B]: of sound
        i and image j."""
        heard, seen = self._directions(spectrogram, images)
        with without_autocast(seen):
            logits: Tensor = heard @ seen.t() * self.scale + self.bias
        return logits

    def judged(self, spectrogram: Tensor, images: Tensor) -> Tensor:
        """The logit of each sound with its own image alone, [B]."""
        heard, seen = self._directions(spectrogram, images)
        logits: Tensor = (heard * seen).sum(dim=1) * self.scale + self.bias
        return logits

    def _directions(self, spectrogram: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        heard, seen = direction(self.listener.heard(spectrogram)), self.viewer(lower_half(images))
        return heard.float(), seen.float()


def _told(hidden: Tensor, what: Tensor) -> Tensor:
    """`hidden` [B, C, H, W], each feature scaled and shifted as `what` [B, 2 C] says."""
    scale, shift = what[:, :, None, None].chunk(2, dim=1)
    return hidden * (1 + scale) + shift


def lower_half(images: Tensor) -> Tensor:
    """The lower half of `images` [B, C, H, W]: where a mouth is."""
    return images[:, :, images.shape[2] // 2 :]


def beside_mouth(images: Tensor) -> Tensor:
    """The left and the right quarter of the lower half of `images` [B, C, H, W]: what no mouth moves."""
    lower, quarter = lower_half(images), images.shape[3] // 4
    return torch.cat((lower[..., :quarter], lower[..., -quarter:]), dim=3)
