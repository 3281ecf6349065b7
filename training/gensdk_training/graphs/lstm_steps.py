"""What the row and the pixel graph of AutoregressiveSpec run over the layers of a PixelRNN.

The hidden states of a row are made by the pixel graph, one pixel at a time, and are needed by the row below.
Nothing leads from that graph back to the row graph but the row itself, so the row graph makes the states of the
finished row once more, from its pixels and from what it took from above: of row LSTMs all columns in parallel, of
diagonal ones column after column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gensdk_training.graphs.pixel_steps import Sizes, parts_of
from gensdk_training.networks.diagonal_lstm import DiagonalLstmLayer
from gensdk_training.networks.row_lstm import FirstConvolution, RowLstmLayer

LstmLayer = RowLstmLayer | DiagonalLstmLayer


class LstmRowStack(nn.Module):
    """All layers over a finished row, for what the row below takes from them."""

    def __init__(self, first: FirstConvolution, layers: nn.ModuleList, labels: nn.Embedding | None) -> None:
        super().__init__()
        self.first = first
        self.layers = layers
        self.labels = labels

    def forward(self, row: Tensor, cache: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`row` [B, C, W], `cache` [B, S, W] to what each column of the row below gets [W, B, F], and the next
        cache: rows of the image, and the same once more."""
        layers = lstm_layers(self.layers)
        sizes = [self.first.cached, self.first.features, *(layer.carried for layer in layers)]
        rows, given, *aboves = parts_of(cache, sizes)
        x, below, rows = self.first("row", row, given, rows)
        handed, kept = [below], [below] if rows is None else [rows, below]
        for layer, above, bias in zip(layers, aboves, label_biases(self.labels, label, layers), strict=True):
            x, below = layer("row", x, above, bias)
            handed.append(below if layer.handed == layer.carried else below[:, : layer.handed])
            kept.append(below)
        return torch.cat(handed, dim=1).permute(2, 0, 1), torch.cat(kept, dim=1)


class LstmPixelStack(nn.Module):
    """All layers at one pixel, up to the heads' hidden features."""

    def __init__(self, first: FirstConvolution, layers: nn.ModuleList, entry: nn.Linear) -> None:
        super().__init__()
        self.first = first
        self.layers = layers
        self.entry = entry

    def forward(self, pixel: Tensor, context: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """`pixel` [B, C], `context` [B, F], `cache` [B, S] to hidden features [B, C * E] and next cache."""
        layers = lstm_layers(self.layers)
        given, *aboves = torch.split(context, _context_sizes(self.first, layers), dim=1)
        pixels, *lefts = parts_of(cache, [self.first.cached, *(layer.cached for layer in layers)])
        x, pixels = self.first("pixel", pixel, given, pixels)
        kept = [] if pixels is None else [pixels]
        for layer, above, left in zip(layers, aboves, lefts, strict=True):
            x, next_left = layer("pixel", x, above, left)
            kept.append(next_left)
        return self.entry(torch.relu(x)), torch.cat(kept, dim=1)


def sizes_of(first: FirstConvolution, layers: nn.ModuleList) -> Sizes:
    """What the two stacks keep and hand over."""
    lstms = lstm_layers(layers)
    rows = first.cached + first.features + sum(layer.carried for layer in lstms)
    pixels = first.cached + sum(layer.cached for layer in lstms)
    return Sizes(rows=rows, pixels=pixels, context=sum(_context_sizes(first, lstms)))


def _context_sizes(first: FirstConvolution, layers: Sequence[LstmLayer]) -> list[int]:
    """What a pixel takes from above into the first convolution and into each layer."""
    return [first.features, *(layer.handed for layer in layers)]


def label_biases(
    labels: nn.Module | None, label: Tensor | None, layers: Sequence[LstmLayer]
) -> Sequence[Tensor | None]:
    """The label's bias of each layer, [B, labelled]; None where there are no labels."""
    if labels is None or label is None:
        return [None] * len(layers)
    return torch.split(labels(label), [layer.labelled for layer in layers], dim=1)


def lstm_layers(layers: nn.ModuleList) -> Sequence[LstmLayer]:
    """The layers by their type."""
    return cast(Sequence[LstmLayer], layers)
