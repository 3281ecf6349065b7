"""Gated PixelCNN: an image as a product of conditionals, one pixel after the other.

Paper: van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders" (arXiv 1606.05328).

Idea: ``p(x) = prod_i p(x_i | x_<i)``, pixels in raster order, the channels of one pixel in the order R, G, B.
Each conditional is a categorical distribution over `levels` grey levels, so the likelihood is exact. A
vertical stack of convolutions sees the rows above and feeds a horizontal stack, which sees the pixels to the
left: together everything before the pixel, with no blind spot. Mask A (`first_kernel`) leaves the pixel
itself out, the layers after it (`kernel`, mask B) don't. A class label adds a bias to every gate.

Exports three graphs: the vertical stacks once a row, the horizontal stacks once a pixel with the draw inside,
and the parallel pass for ``Generator.log_likelihood``. See :mod:`gensdk_training.graphs.pixel_steps`.

It does not: split features into groups for R, G and B as the paper's masks do. The features of a pixel see
whole earlier pixels, and the head of each channel also gets the lower channels of its own pixel. Nor does it
have PixelCNN++'s logistic mixtures, down-sampling or dropout between the stacks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, require_labels
from gensdk_training.graphs.pixel_steps import (
    ChannelHead,
    Likelihood,
    PixelStack,
    PixelStep,
    RowStack,
    RowStep,
    graph_specs,
)
from gensdk_training.networks.gated_stacks import GatedLayer, LabelBias, label_biases
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register


class PixelCnnConfig(FamilyConfig):
    """Settings of the gated PixelCNN.

    levels: Grey levels of each channel that are told apart.
    layers: Gated layers.
    channels: Features of each gated layer.
    head_channels: Hidden features of each channel's head.
    first_kernel: Size of the first layer's kernel, odd; take 3 or 5 for images of 8x8.
    kernel: Size of the other layers' kernels, odd.
    """

    levels: Annotated[int, Field(ge=2, le=256)] = 17
    layers: Annotated[int, Field(ge=2, le=64)] = 7
    channels: Annotated[int, Field(ge=1, le=4096)] = 20
    head_channels: Annotated[int, Field(ge=1, le=4096)] = 64
    first_kernel: Annotated[int, Field(ge=3, le=31)] = 7
    kernel: Annotated[int, Field(ge=3, le=31)] = 3
    conditional: bool = False
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"

    @field_validator("first_kernel", "kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"a masked kernel has a middle pixel, so its size is odd; got {value}")
        return value


class PixelCnnNetwork(nn.Module):
    """All conditionals in one parallel pass."""

    def __init__(self, config: PixelCnnConfig, image_channels: int, classes: int | None) -> None:
        super().__init__()
        features = config.channels
        layers = [GatedLayer(image_channels, features, kernel_size=config.first_kernel, first=True)]
        for _ in range(config.layers - 1):
            layers.append(GatedLayer(features, features, kernel_size=config.kernel, first=False))
        self.layers = nn.ModuleList(layers)
        self.labels = LabelBias(classes, layers) if classes else None
        self.entry = nn.Linear(config.channels, image_channels * config.head_channels)
        self.heads = nn.ModuleList(
            ChannelHead(config.head_channels, config.levels, lower=channel) for channel in range(image_channels)
        )

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], values of grey levels in [-1, 1], to logits [B, C, H, W, levels]."""
        v = h = images
        biases = label_biases(self.labels, label, len(self.layers))
        for layer, bias in zip(self.layers, biases, strict=True):
            v, h = layer("parallel", v, h, *bias)
        hidden = self.entry(torch.relu(h).permute(0, 2, 3, 1)).chunk(len(self.heads), dim=-1)
        lower = images.permute(0, 2, 3, 1)
        logits = [
            head(part, lower[..., :channel]) if channel else head(part)
            for channel, (head, part) in enumerate(zip(self.heads, hidden, strict=True))
        ]
        return torch.stack(logits, dim=1)


@register("pixelcnn")
class PixelCnn(Family[PixelCnnConfig]):
    """Gated PixelCNN with exact likelihoods and cached sampling."""

    title: ClassVar[str] = "gated PixelCNN: exact likelihoods, one pixel after the other"
    paper: ClassVar[str] = (
        "van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders, arXiv 1606.05328"
    )
    Config: ClassVar[type[FamilyConfig]] = PixelCnnConfig
    ema_networks = ("pixelcnn",)

    def check(self) -> None:
        """Refuses `conditional` for data without labels."""
        if self.config.conditional and self.data.num_classes is None:
            raise InputError(f"conditional=true needs labels, data {self.data.name!r} has none; set it to false")

    def build_networks(self) -> dict[str, nn.Module]:
        """One network, called ``pixelcnn``."""
        return {"pixelcnn": PixelCnnNetwork(self.config, self.data.channels, self._num_classes)}

    @property
    def _num_classes(self) -> int | None:
        return self.data.num_classes if self.config.conditional else None

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood by Adam."""
        return (Phase("likelihood", ("pixelcnn",), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The mean negative log-likelihood in nats for each value; ``bits_per_dim`` is logged."""
        label = require_labels(batch) if self.config.conditional else None
        log_p = Likelihood(networks["pixelcnn"], levels=self.config.levels)(batch.images, label)
        total = -log_p.mean() / batch.images[0].numel()
        return Loss(total, {"bits_per_dim": total.detach() / math.log(2)})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """Row, pixel and likelihood graph. Half precision covers what makes logits, not the draw."""
        network = cast(PixelCnnNetwork, networks["pixelcnn"].eval())
        levels, image = self.config.levels, self.data.image
        program, graphs = graph_specs(network.layers, image, levels=levels, conditional=self.config.conditional)
        modules = (
            RowStep(RowStack(network.layers, network.labels)),
            PixelStep(PixelStack(network.layers, network.entry), network.heads, levels=levels),
            Likelihood(network, levels=levels),
        )
        model = ModelSpec(
            name=f"{self.data.name}-{self.name}",
            family=self.name,
            program=program,
            graphs=graphs,
            output=image,
            conditions=label_conditions(self._num_classes, self.data.class_names),
        )
        heads = tuple(f"heads.{channel}" for channel in range(image.channels))
        return ExportPlan(
            model=model,
            modules={graph.name: module.eval() for graph, module in zip(graphs, modules, strict=True)},
            half={
                program.row_graph: ("stack",),
                program.pixel_graph: ("stack", *heads),
                program.likelihood_graph: ("network",),
            },
        )
