"""What the row and the pixel graph of AutoregressiveSpec run over the layers of a gated PixelCNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gensdk_training.graphs.pixel_steps import Sizes, parts_of
from gensdk_training.networks.gated_stacks import GatedLayer, LabelBias, label_biases


class RowStack(nn.Module):
    """The vertical stacks of all layers at one row."""

    def __init__(self, layers: nn.ModuleList, labels: LabelBias | None) -> None:
        super().__init__()
        self.layers = layers
        self.labels = labels

    def forward(self, row: Tensor, cache: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`row` [B, C, W], `cache` [B, S, W] to contributions [W, B, F] to the pixels and the next cache."""
        v, contexts, kept = row, [], []
        caches = parts_of(cache, [layer.cached for layer in _gated(self.layers)])
        biases = label_biases(self.labels, label, len(self.layers))
        for layer, old, bias in zip(_gated(self.layers), caches, biases, strict=True):
            v, context, new = layer("row", v, old, *bias)
            contexts.append(context)
            kept += [new] if new is not None else []
        return torch.cat(contexts, dim=1).permute(2, 0, 1), torch.cat(kept, dim=1)


class PixelStack(nn.Module):
    """The horizontal stacks of all layers at one pixel, up to the heads' hidden features."""

    def __init__(self, layers: nn.ModuleList, entry: nn.Linear) -> None:
        super().__init__()
        self.layers = layers
        self.entry = entry

    def forward(self, pixel: Tensor, context: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """`pixel` [B, C], `context` [B, F], `cache` [B, S] to hidden features [B, C * E] and next cache."""
        h, kept = pixel, []
        contexts = torch.split(context, [2 * layer.outputs for layer in _gated(self.layers)], dim=1)
        caches = parts_of(cache, [layer.cached for layer in _gated(self.layers)])
        for layer, old, part in zip(_gated(self.layers), caches, contexts, strict=True):
            h, new = layer("pixel", h, old, part)
            kept += [new] if new is not None else []
        return self.entry(torch.relu(h)), torch.cat(kept, dim=1)


def sizes_of(layers: nn.ModuleList) -> Sizes:
    """What the two stacks keep and hand over."""
    cached = sum(layer.cached for layer in _gated(layers))
    return Sizes(rows=cached, pixels=cached, context=sum(2 * layer.outputs for layer in _gated(layers)))


def _gated(layers: nn.ModuleList) -> Sequence[GatedLayer]:
    return cast(Sequence[GatedLayer], layers)
