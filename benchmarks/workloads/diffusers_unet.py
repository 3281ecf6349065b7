"""diffusers' UNet2DModel as a denoiser that computes its time embedding apart and can share deep features."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from gensdk_training.networks.denoiser import SharingDenoiser


class Part(nn.Module):
    """Stands in for a block's projection of the time embedding: takes its part of what is projected already."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, embedding: Tensor) -> Tensor:
        """[N, F] to [N, last - first]."""
        return embedding[:, self.first : self.last]


class DiffusersUNet(SharingDenoiser):
    """A copy of `unet` (diffusers' ``UNet2DModel``, without classes), with the same results.

    The embedding holds the time projections of all residual blocks, one after another. `depth` counts the residual
    blocks of the last up block, from the last one on; with them go the same number of inputs from the first down
    block, of which the first is the very first convolution. Raises ValueError for a U-Net of another kind.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        config = unet.config
        if (
            unet.class_embedding is not None
            or config.center_input_sample
            or config.time_embedding_type == "fourier"
        ):
            raise ValueError("expected a UNet2DModel without classes, with plain time steps and inputs")
        if any(hasattr(block, "skip_conv") for block in (*unet.down_blocks, *unet.up_blocks)):
            raise ValueError("expected a UNet2DModel without skip blocks")
        self.unet = copy.deepcopy(unet).eval()
        blocks = [part for part in self.unet.modules() if isinstance(part, ResnetBlock2D)]
        self.projections = nn.ModuleList()
        self.embedding_size = 0
        for block in blocks:
            self.projections.append(block.time_emb_proj)
            size = block.time_emb_proj.out_features
            block.time_emb_proj = Part(self.embedding_size, self.embedding_size + size)
            block.skip_time_act = True
            self.embedding_size += size
        self.max_depth = len(self.unet.up_blocks[-1].resnets)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """X [N, C, H, W] and timestep [1] or [N] to eps of x's shape."""
        return self.denoise(x, self.embed(timestep))

    def embed(self, timestep: Tensor, label: Tensor | None = None) -> Tensor:
        """The time projections [N, F]."""
        active = nn.functional.silu(self.unet.time_embedding(self.unet.time_proj(timestep)))
        return torch.cat([project(active) for project in self.projections], dim=1)

    def denoise(self, x: Tensor, embedding: Tensor, *contexts: Tensor) -> Tensor:
        """The rest of the U-Net."""
        return self.denoise_sharing(x, embedding, depth=1)[0]

    def features(self, height: int, width: int, *, depth: int) -> tuple[int, int, int]:
        """What the last up block has at full size: its own width, or that of the block before it."""
        block = self.unet.up_blocks[-1].resnets[-depth]
        skip = (
            self.unet.down_blocks[0].resnets[depth - 2].out_channels
            if depth > 1
            else self.unet.conv_in.out_channels
        )
        return (block.in_channels - skip, height, width)

    def denoise_sharing(
        self, x: Tensor, embedding: Tensor, *contexts: Tensor, depth: int
    ) -> tuple[Tensor, Tensor]:
        """As UNet2DModel.forward, cut open in the last up block."""
        time = embedding.reshape(-1, self.embedding_size)
        hidden = self.unet.conv_in(x)
        skips = [hidden]
        for down in self.unet.down_blocks:
            hidden, more = down(hidden_states=hidden, temb=time)
            skips += more
        if self.unet.mid_block is not None:
            hidden = self.unet.mid_block(hidden, time)
        for up in self.unet.up_blocks[:-1]:
            taken = len(up.resnets)
            hidden = up(hidden, tuple(skips[-taken:]), time)
            del skips[-taken:]
        deep_features = self._climb(hidden, skips[depth:], time, first=0)
        return self._surface(deep_features, skips[:depth], time), deep_features

    def denoise_shallow(
        self, x: Tensor, embedding: Tensor, deep_features: Tensor, *contexts: Tensor, depth: int
    ) -> Tensor:
        """The first convolution, `depth` - 1 blocks on the way down, `depth` on the way up, the output."""
        time = embedding.reshape(-1, self.embedding_size)
        skips = [self.unet.conv_in(x)]
        down = self.unet.down_blocks[0]
        for index in range(depth - 1):
            skips.append(_block(down, index, skips[-1], time))
        return self._surface(deep_features, skips, time)

    def _climb(self, x: Tensor, skips: list[Tensor], time: Tensor, *, first: int) -> Tensor:
        """As many blocks of the last up block as there are skips, from block `first` on."""
        for index, skip in enumerate(reversed(skips), start=first):
            x = _block(self.unet.up_blocks[-1], index, torch.cat([x, skip], dim=1), time)
        return x

    def _surface(self, x: Tensor, skips: list[Tensor], time: Tensor) -> Tensor:
        """The last blocks, one for each of `skips`, and the output."""
        hidden = self._climb(x, skips, time, first=self.max_depth - len(skips))
        out: Tensor = self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(hidden)))
        return out


def _block(level: Any, index: int, x: Tensor, time: Tensor) -> Tensor:
    """Residual block `index` of a level, and its attention where the level has it."""
    out: Tensor = level.resnets[index](x, time)
    if hasattr(level, "attentions"):
        out = level.attentions[index](out)
    return out
