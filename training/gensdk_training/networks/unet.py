"""The U-Net of diffusion models, and the blocks that it is made of.

Ho, Jain & Abbeel (2020), appendix B, with two changes: the time embedding scales and shifts inside each block
(Dhariwal & Nichol 2021, "adaptive group normalization", section 3.1), and both sides of the U have the same
number of blocks, with one skip from each block to its mirror image.

All that depends on time and label alone, down to each block's scale and shift, comes first and as one vector
(:meth:`UNet.embed`); the rest of the network takes it ready-made.

Attention is written as two matrix products and a softmax: the fused operator exports to nodes that some
runtimes refuse. Nothing here makes a float32 tensor inside the forward pass except :class:`Sinusoid`, so the
network can be turned to half precision as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_training.networks.denoiser import SharingDenoiser

RESIDUAL_INIT = 0.1
"""Weight scale of the last convolution of each residual branch: a fresh block is near the identity."""


@dataclass(frozen=True)
class UNetShape:
    """The sizes of a :class:`UNet`.

    `channels` times each of `multipliers` is the width of each level; each level halves height and width.
    `attention_levels` are the levels (0: full size) whose blocks attend to all positions, and to a text's context
    of `context_features` where there is one. The U sees squares of `patch` x `patch` pixels as one position.
    """

    image_channels: int
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention_levels: frozenset[int]
    attention_heads: int
    norm_groups: int
    dropout: float
    num_labels: int | None
    context_features: int | None = None
    patch: int = 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def embedding(self) -> int:
        """Size of the embedding of time and label."""
        return 4 * self.channels

    def width_above(self, level: int) -> int:
        """Channels of the level above; of the top level: its own."""
        return self.widths[max(level - 1, 0)]


class Sinusoid(nn.Module):
    """Sines and cosines of a time step (Vaswani et al. 2017, section 3.5), periods from 2 pi to 2e4 pi.

    Kept in float32 at any precision of the network: a time step of 999 has no exact sine in half precision.
    """

    fp32_island: ClassVar[bool] = True
    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        half = features // 2
        exponents = torch.arange(half, dtype=torch.float64) / half
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * exponents).float(), persistent=False)

    def forward(self, timestep: Tensor) -> Tensor:
        """[N] to float32 [N, features], each within [-1, 1]; of whole numbers the same whatever their type."""
        phases = timestep.to(self.frequencies.dtype).unsqueeze(1) * self.frequencies
        return torch.cat([phases.cos(), phases.sin()], dim=1)


class AdaptiveNorm(nn.GroupNorm):
    """Group norm whose output is scaled and shifted once more, by the embedding: both scales are one."""

    def merged(self, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """``norm(x) * (1 + scale) + shift`` as one scale and shift, all [N, C]."""
        scale = 1 + scale
        return self.weight * scale, self.bias * scale + shift

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:  # type: ignore[override]
        """[N, C, H, W], normalized, with a merged scale and shift [N, C, 1, 1] or [1, C, 1, 1]."""
        return functional.group_norm(x, self.num_groups, eps=self.eps) * scale + shift


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the embedding scales and shifts in between; the input is added."""

    def __init__(self, inputs: int, outputs: int, embedding: int, *, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.scale_shift = nn.Linear(embedding, 2 * outputs)
        self.norm_out = AdaptiveNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = scaled(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def modulate(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift [N, outputs] from the embedding of time and label [N, E]."""
        scale, shift = self.scale_shift(embedding).chunk(2, dim=1)
        return self.norm_out.merged(scale, shift)

    def forward(self, x: Tensor, modulations: Modulations) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H, W]."""
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        hidden = self.norm_out(hidden, *modulations[self])
        out: Tensor = self.skip(x) + self.conv_out(self.dropout(functional.silu(hidden)))
        return out


Modulations = Mapping[ResidualBlock, tuple[Tensor, Tensor]]
"""The scale and shift of each block: [N, C, 1, 1] each, or [1, C, 1, 1] for all."""


class Told(NamedTuple):
    """What the stages are told beside x: of time and label, and of a text, `context` [N, T, D]."""

    modulations: Modulations
    context: Tensor | None


class SelfAttention(nn.Module):
    """Each position attends to all (Vaswani et al. 2017, eq. 1); the input is added."""

    def __init__(self, channels: int, *, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.project = scaled(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        channels, height, width = x.shape[1:]
        head = channels // self.heads
        parts = self.query_key_value(self.norm(x)).reshape(-1, 3 * self.heads, head, height * width)
        query, key, value = parts.chunk(3, dim=1)
        weights = torch.softmax((query * head**-0.5).transpose(2, 3) @ key, dim=-1)
        attended = (value @ weights.transpose(2, 3)).reshape(-1, channels, height, width)
        out: Tensor = x + self.project(attended)
        return out


class CrossAttention(nn.Module):
    """Each position attends to the places of a context (Rombach et al. 2022, section 3.3); the input is added."""

    def __init__(self, channels: int, context: int, *, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.Linear(context, 2 * channels, bias=False)
        self.project = scaled(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """X [N, C, H, W] and context [N, T, D] to [N, C, H, W]."""
        channels, height, width = x.shape[1:]
        head = channels // self.heads
        query = self.query(self.norm(x)).reshape(-1, self.heads, head, height * width)
        places = self.key_value(context).transpose(1, 2).reshape(-1, 2 * self.heads, head, context.shape[1])
        key, value = places.chunk(2, dim=1)
        weights = torch.softmax((query * head**-0.5).transpose(2, 3) @ key, dim=-1)
        attended = (value @ weights.transpose(2, 3)).reshape(-1, channels, height, width)
        out: Tensor = x + self.project(attended)
        return out


class Stage(nn.Module):
    """A residual block, then self-attention where the level has it, then attention to a context where there is
    one."""

    def __init__(self, inputs: int, outputs: int, shape: UNetShape, *, attend: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(
            inputs, outputs, shape.embedding, groups=shape.norm_groups, dropout=shape.dropout
        )
        self.attention: nn.Module = nn.Identity()
        if attend:
            self.attention = SelfAttention(outputs, heads=shape.attention_heads, groups=shape.norm_groups)
        self.cross: nn.Module | None = None
        if attend and shape.context_features is not None:
            self.cross = CrossAttention(
                outputs, shape.context_features, heads=shape.attention_heads, groups=shape.norm_groups
            )

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H, W]."""
        out: Tensor = self.attention(self.block(x, told.modulations))
        return out if self.cross is None else cast(Tensor, self.cross(out, told.context))


class DownLevel(nn.Module):
    """The way down through one level: halve the size (below the top level), then the stages."""

    def __init__(self, level: int, shape: UNetShape) -> None:
        super().__init__()
        above, width = shape.width_above(level), shape.widths[level]
        self.shrink = nn.Conv2d(above, above, 3, stride=2, padding=1) if level else nn.Identity()
        attend = level in shape.attention_levels
        inputs = [above] + [width] * (shape.blocks - 1)
        self.stages = nn.ModuleList(Stage(n, width, shape, attend=attend) for n in inputs)

    def forward(self, x: Tensor, told: Told) -> list[Tensor]:
        """[N, C above, H, W] to the outputs of all stages, each [N, C, H/2, W/2] (top level: [N, C, H, W])."""
        outputs = []
        hidden = self.shrink(x)
        for stage in self.stages:
            hidden = stage(hidden, told)
            outputs.append(hidden)
        return outputs


class UpLevel(nn.Module):
    """The way up through one level: the stages, each with its mirror image's output, then double the size."""

    def __init__(self, level: int, shape: UNetShape) -> None:
        super().__init__()
        above, width = shape.width_above(level), shape.widths[level]
        attend = level in shape.attention_levels
        outputs = [width] * (shape.blocks - 1) + [above]
        self.stages = nn.ModuleList(Stage(2 * width, n, shape, attend=attend) for n in outputs)
        self.grow: nn.Module = nn.Identity()
        if level:
            self.grow = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(above, above, 3, padding=1)
            )

    def forward(self, x: Tensor, skips: list[Tensor], told: Told) -> Tensor:
        """[N, C, H, W] and the skips of this level to [N, C above, 2H, 2W] (top level: H, W)."""
        out: Tensor = self.grow(self.climb(x, skips, told, first=0))
        return out

    def climb(self, x: Tensor, skips: list[Tensor], told: Told, *, first: int) -> Tensor:
        """As many stages as there are skips, from stage `first` on, without doubling the size."""
        for stage, skip in zip(self.stages[first:], reversed(skips), strict=False):
            x = stage(torch.cat([x, skip], dim=1), told)
        return x


class UNet(SharingDenoiser):
    """Predicts the noise in x_t from x_t, the time step, a label where the model has labels, and what a text
    became where it is told one.

    The embedding is an MLP over :class:`Sinusoid`, plus one learned vector for each of `num_labels` labels.
    """

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        levels, widths = range(len(shape.widths)), shape.widths
        self.time = nn.Sequential(
            Sinusoid(shape.channels),
            nn.Linear(shape.channels, shape.embedding),
            nn.SiLU(),
            nn.Linear(shape.embedding, shape.embedding),
        )
        self.label = None if shape.num_labels is None else nn.Embedding(shape.num_labels, shape.embedding)
        pixels = shape.image_channels * shape.patch**2
        self.patch = shape.patch
        self.conv_in = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(DownLevel(level, shape) for level in levels)
        self.middle_in = Stage(widths[-1], widths[-1], shape, attend=True)
        self.middle_out = Stage(widths[-1], widths[-1], shape, attend=False)
        self.up = nn.ModuleList(UpLevel(level, shape) for level in reversed(levels))
        self.norm_out = nn.GroupNorm(shape.norm_groups, widths[0])
        self.conv_out = scaled(nn.Conv2d(widths[0], pixels, 3, padding=1))
        self.max_depth = shape.blocks
        self.embedding_size = sum(2 * block.norm_out.num_channels for block in self._blocks())

    def forward(self, x: Tensor, timestep: Tensor, *asked: Tensor) -> Tensor:
        """X [N, C, H, W], timestep [N] or [1], label int64 [N], context [N, T, D]; gives eps [N, C, H, W]."""
        label, contexts = (None, asked) if self.label is None else (asked[0], asked[1:])
        return self.denoise(x, self.embed(timestep, label), *contexts)

    def embed(self, timestep: Tensor, label: Tensor | None = None) -> Tensor:
        """The scales and shifts of all blocks, one after another."""
        embedding = self.time(timestep)
        if self.label is not None:
            embedding = embedding + self.label(label)
        embedding = functional.silu(embedding)
        return torch.cat([part for block in self._blocks() for part in block.modulate(embedding)], dim=1)

    def denoise(self, x: Tensor, embedding: Tensor, *contexts: Tensor) -> Tensor:
        """The U-Net behind its embedding; contexts: one [N, T, D], or none."""
        return self.denoise_sharing(x, embedding, *contexts, depth=1)[0]

    def features(self, height: int, width: int, *, depth: int) -> tuple[int, int, int]:
        """The width of the top level, at its size."""
        return (self.conv_in.out_channels, height // self.patch, width // self.patch)

    def denoise_sharing(
        self, x: Tensor, embedding: Tensor, *contexts: Tensor, depth: int
    ) -> tuple[Tensor, Tensor]:
        """Deep features are what comes up to the last `depth` stages of the top level."""
        told = self._told(embedding, contexts)
        hidden, skips = self._enter(x), []
        for down in self.down:
            skips.append(down(hidden, told))
            hidden = skips[-1][-1]
        hidden = self.middle_out(self.middle_in(hidden, told), told)
        for up in self.up[:-1]:
            hidden = up(hidden, skips.pop(), told)
        deep_features = cast(UpLevel, self.up[-1]).climb(hidden, skips[0][depth:], told, first=0)
        return self._surface(deep_features, skips[0][:depth], told), deep_features

    def denoise_shallow(
        self, x: Tensor, embedding: Tensor, deep_features: Tensor, *contexts: Tensor, depth: int
    ) -> Tensor:
        """The first `depth` stages of the top level on the way down, and the last ones on the way up."""
        told = self._told(embedding, contexts)
        hidden, skips = self._enter(x), []
        for stage in cast(DownLevel, self.down[0]).stages[:depth]:
            hidden = stage(hidden, told)
            skips.append(hidden)
        return self._surface(deep_features, skips, told)

    def _surface(self, x: Tensor, skips: list[Tensor], told: Told) -> Tensor:
        """The last stages, one for each of `skips`, and the output."""
        top = cast(UpLevel, self.up[-1])
        hidden = top.climb(x, skips, told, first=len(top.stages) - len(skips))
        out: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return out if self.patch == 1 else functional.pixel_shuffle(out, self.patch)

    def _enter(self, x: Tensor) -> Tensor:
        """The first features, [N, C, H / patch, W / patch]."""
        pixels = x if self.patch == 1 else functional.pixel_unshuffle(x, self.patch)
        return cast(Tensor, self.conv_in(pixels))

    def _blocks(self) -> list[ResidualBlock]:
        """All residual blocks, in the order of the embedding."""
        return [part for part in self.modules() if isinstance(part, ResidualBlock)]

    def _told(self, embedding: Tensor, contexts: tuple[Tensor, ...]) -> Told:
        return Told(self._modulations(embedding), contexts[0] if contexts else None)

    def _modulations(self, embedding: Tensor) -> Modulations:
        """The parts of an embedding [N, F] or [1, F]."""
        blocks = self._blocks()
        widths = [block.norm_out.num_channels for block in blocks for _ in range(2)]
        parts = iter(torch.split(embedding.reshape(-1, self.embedding_size, 1, 1), widths, dim=1))
        return {block: (next(parts), next(parts)) for block in blocks}


def scaled(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution with its fresh weights scaled by :data:`RESIDUAL_INIT` and its bias at zero."""
    with torch.no_grad():
        convolution.weight.mul_(RESIDUAL_INIT)
        if convolution.bias is not None:
            convolution.bias.zero_()
    return convolution
