"""What families have in common that draw pixel after pixel: grey levels, heads, the loss, three graphs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, require_labels
from gensdk_training.graphs.pixel_steps import ChannelHead, Likelihood, PixelStep, RowStep, Sizes, graph_specs
from gensdk_training.plan import ExportPlan


class PixelConfig(FamilyConfig):
    """Settings of every family that draws pixel after pixel.

    levels: Grey levels of each channel that are told apart.
    head_channels: Hidden features of each channel's head.
    """

    levels: Annotated[int, Field(ge=2, le=256)] = 17
    head_channels: Annotated[int, Field(ge=1, le=4096)] = 64
    conditional: bool = False
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"


def odd(value: int) -> int:
    """`value`, the size of a masked kernel; ValueError where it is even."""
    if value % 2 == 0:
        raise ValueError(f"a masked kernel has a middle pixel, so its size is odd; got {value}")
    return value


class PixelNetwork(nn.Module, ABC):
    """All conditionals in one parallel pass, and the stacks that give the same row by row and pixel by pixel."""

    entry: nn.Linear
    heads: nn.ModuleList

    def build_heads(self, config: PixelConfig, features: int, image_channels: int) -> None:
        """What makes logits of the `features` of a pixel; called last."""
        self.entry = nn.Linear(features, image_channels * config.head_channels)
        self.heads = nn.ModuleList(
            ChannelHead(config.head_channels, config.levels, lower=channel) for channel in range(image_channels)
        )

    @abstractmethod
    def features(self, images: Tensor, label: Tensor | None) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] to features [B, F, H, W], each of what lies before its pixel."""

    @abstractmethod
    def sizes(self) -> Sizes:
        """What goes from step to step."""

    @abstractmethod
    def row_stack(self) -> nn.Module:
        """The module of :class:`RowStep`."""

    @abstractmethod
    def pixel_stack(self) -> nn.Module:
        """The module of :class:`PixelStep`."""

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], values of grey levels in [-1, 1], to logits [B, C, H, W, levels]."""
        features = self.features(images, label)
        hidden = self.entry(torch.relu(features).permute(0, 2, 3, 1)).chunk(len(self.heads), dim=-1)
        lower = images.permute(0, 2, 3, 1)
        logits = [
            head(part, lower[..., :channel]) if channel else head(part)
            for channel, (head, part) in enumerate(zip(self.heads, hidden, strict=True))
        ]
        return torch.stack(logits, dim=1)


PixelConfigT = TypeVar("PixelConfigT", bound=PixelConfig)


class PixelFamily(Family[PixelConfigT]):
    """A family of one network, a :class:`PixelNetwork`, that is called as `ema_networks` says."""

    def check(self) -> None:
        """Refuses `conditional` for data without labels."""
        if self.config.conditional and self.data.num_classes is None:
            raise InputError(f"conditional=true needs labels, data {self.data.name!r} has none; set it to false")

    @property
    def num_classes(self) -> int | None:
        """How many classes the network is built with; None: without."""
        return self.data.num_classes if self.config.conditional else None

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood by Adam."""
        return (Phase("likelihood", self.ema_networks, self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The mean negative log-likelihood in nats for each value; ``bits_per_dim`` is logged."""
        label = require_labels(batch) if self.config.conditional else None
        (name,) = self.ema_networks
        log_p = Likelihood(networks[name], levels=self.config.levels)(batch.images, label)
        total = -log_p.mean() / batch.images[0].numel()
        return Loss(total, {"bits_per_dim": total.detach() / math.log(2)})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """Row, pixel and likelihood graph. Half precision covers what makes logits, not the draw."""
        (name,) = self.ema_networks
        network = cast(PixelNetwork, networks[name].eval())
        levels, image = self.config.levels, self.data.image
        program, graphs = graph_specs(network.sizes(), image, levels=levels, conditional=self.config.conditional)
        modules = (
            RowStep(network.row_stack()),
            PixelStep(network.pixel_stack(), network.heads, levels=levels),
            Likelihood(network, levels=levels),
        )
        model = ModelSpec(
            name=f"{self.data.name}-{self.name}",
            family=self.name,
            program=program,
            graphs=graphs,
            output=image,
            conditions=label_conditions(self.num_classes, self.data.class_names),
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
