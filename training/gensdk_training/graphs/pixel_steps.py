"""The three graphs of AutoregressiveSpec over any stacks of layers: row, pixel, likelihood.

They hold the training network's own parameters, so they follow it while it trains. Everything between
normalized values in [-1, 1] and grey levels happens inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from gensdk_runtime.spec.model import AutoregressiveSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.networks.grey_levels import draw_level, level_of, value_of

ROW, PIXEL, LIKELIHOOD = "row", "pixel", "likelihood"


class ChannelHead(nn.Module):
    """Logits of one channel from a pixel's hidden features and the `lower` channels of the same pixel."""

    def __init__(self, hidden: int, levels: int, *, lower: int) -> None:
        super().__init__()
        self.lower = nn.Linear(lower, hidden, bias=False) if lower else None
        self.out = nn.Linear(hidden, levels)

    def forward(self, hidden: Tensor, lower: Tensor | None = None) -> Tensor:
        """`hidden` [..., E] and `lower` [..., lower], values in [-1, 1], to logits [..., levels]."""
        if self.lower is not None and lower is not None:
            hidden = hidden + self.lower(lower)
        return cast(Tensor, self.out(torch.relu(hidden)))


class RowStep(nn.Module):
    """One row: a stack of layers, all of which half precision may cover."""

    def __init__(self, stack: nn.Module) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, row: Tensor, rows: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`row` [B, C, W], the finished one above, and `rows` [B, S, W], what was kept of those before, to what
        each column of the row below gets, [W, B, F], and what is kept next."""
        context, next_rows = self.stack(row, rows) if label is None else self.stack(row, rows, label)
        return context, next_rows


class PixelStep(nn.Module):
    """One pixel: a stack of layers up to the heads' hidden features [B, C * E], then each channel drawn by the
    inverse CDF of one uniform number."""

    def __init__(self, stack: nn.Module, heads: nn.ModuleList, *, levels: int) -> None:
        super().__init__()
        self.stack = stack
        self.heads = heads
        self.levels = levels

    def forward(self, pixel: Tensor, context: Tensor, uniform: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`pixel` [B, C], `context` [B, F], `uniform` [B, C] to the next pixel [B, C] and the next cache."""
        hidden, next_pixels = self.stack(pixel, context, pixels)
        parts = hidden.chunk(len(self.heads), dim=1)
        drawn: list[Tensor] = []
        for channel, (head, part) in enumerate(zip(self.heads, parts, strict=True)):
            logits = head(part, torch.cat(drawn, dim=1)) if drawn else head(part)
            level = draw_level(logits, uniform[:, channel : channel + 1])
            drawn.append(value_of(level, self.levels))
        return torch.cat(drawn, dim=1), next_pixels


class Likelihood(nn.Module):
    """log p(x) in nats of whole images in one parallel pass; `network` maps (images, label) to logits."""

    def __init__(self, network: nn.Module, *, levels: int) -> None:
        super().__init__()
        self.network = network
        self.levels = levels

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """`images` [B, C, H, W] in [-1, 1], taken to the nearest of the grey levels, to log p [B] in nats."""
        level = level_of(images, self.levels)
        values = value_of(level, self.levels)
        logits = self.network(values) if label is None else self.network(values, label)
        log_p = torch.log_softmax(logits, dim=-1).gather(-1, level.to(torch.int64).unsqueeze(-1))
        return log_p.flatten(1).sum(dim=1)


class Sizes(NamedTuple):
    """How many values go from step to step: `rows` and `pixels`, what the row graph keeps of each column and the
    pixel graph of what lies to the left, and `context`, what a column takes from above."""

    rows: int
    pixels: int
    context: int


def parts_of(cache: Tensor, sizes: Sequence[int]) -> list[Tensor | None]:
    """The cache of each layer, cut out of axis 1; None for a layer that needs none."""
    parts = iter(torch.split(cache, [size for size in sizes if size], dim=1))
    return [next(parts) if size else None for size in sizes]


def graph_specs(
    sizes: Sizes, image: ImageSpec, *, levels: int, conditional: bool
) -> tuple[AutoregressiveSpec, tuple[GraphSpec, ...]]:
    """The program and the signatures of the three graphs.

    The label's biases for the pixels travel in ``context``, so the pixel graph takes no label.
    """
    channels, height, width = image.shape
    label = [_tensor("label", "batch", role="condition", dtype="int64")] if conditional else []
    rows, pixels = ("batch", sizes.rows, width), ("batch", sizes.pixels)
    row = GraphSpec(
        name=ROW,
        inputs=(_tensor("row", "batch", channels, width, role="image"), _tensor("rows", *rows), *label),
        outputs=(_tensor("context", width, "batch", sizes.context), _tensor("next_rows", *rows)),
    )
    pixel = GraphSpec(
        name=PIXEL,
        inputs=(
            _tensor("pixel", "batch", channels, role="image"),
            _tensor("context", "batch", sizes.context),
            TensorSpec(
                name="uniform", dtype="float32", shape=("batch", channels), role="noise", distribution="uniform"
            ),
            _tensor("pixels", *pixels),
        ),
        outputs=(_tensor("next_pixel", "batch", channels, role="image"), _tensor("next_pixels", *pixels)),
    )
    likelihood = GraphSpec(
        name=LIKELIHOOD,
        inputs=(_tensor("image", "batch", channels, height, width, role="image"), *label),
        outputs=(_tensor("log_likelihood", "batch", role="coefficient"),),
    )
    spec = AutoregressiveSpec(row_graph=ROW, pixel_graph=PIXEL, likelihood_graph=LIKELIHOOD, levels=levels)
    return spec, (row, pixel, likelihood)


def _tensor(name: str, *shape: int | str, role: str = "state", dtype: str = "float32") -> TensorSpec:
    value_range = (-1.0, 1.0) if role == "image" else None
    return TensorSpec.model_validate(
        {"name": name, "dtype": dtype, "shape": shape, "role": role, "value_range": value_range}
    )
