"""What families have in common that learn a denoiser: the settings of its U-Net, labels, one phase, the graphs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.model import PredictionType, ScheduleSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_training.family import Batch, Family, FamilyConfig, Phase, require_labels
from gensdk_training.graphs.diffusion_plan import diffusion_plan
from gensdk_training.networks.unet import UNet, UNetShape
from gensdk_training.plan import ExportPlan

DENOISER = "denoiser"
SIZES = (
    "channels",
    "multipliers",
    "blocks",
    "attention_resolutions",
    "attention_heads",
    "norm_groups",
    "num_train_timesteps",
    "conditional",
)
"""Settings that two runs share whose networks fit each other."""


class DenoiserConfig(FamilyConfig):
    """Settings of every family with a U-Net. The defaults suit small images such as 8x8 digits.

    channels: Features of the U-Net, times each of multipliers.
    multipliers: What channels are multiplied with on each level; each level has half the size of the one above.
    blocks: Residual blocks of each level.
    attention_resolutions: Heights in pixels of the levels that attend; the middle block always does.
    attention_heads: Heads of each attention; they divide channels.
    norm_groups: Groups of each group norm; they divide channels.
    dropout: Share of the features that is left out in each block while it trains.
    num_train_timesteps: Time steps from image to noise.
    conditional: Whether the labels of the data are learnt, so that classes can be asked for and guided to.
    guidance_dropout: Share of labels that is left out in training, for guidance.
    """

    steps: Annotated[int, Field(ge=1)] = 6000
    channels: Annotated[int, Field(ge=2, le=65536)] = 16
    multipliers: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=8)
    ] = (1, 2)
    blocks: Annotated[int, Field(ge=1, le=1000)] = 2
    attention_resolutions: tuple[int, ...] = ()
    attention_heads: Annotated[int, Field(ge=1, le=65536)] = 1
    norm_groups: Annotated[int, Field(ge=1, le=65536)] = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    conditional: bool = False
    guidance_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3


DenoiserConfigT = TypeVar("DenoiserConfigT", bound=DenoiserConfig)


class DenoiserFamily(Family[DenoiserConfigT]):
    """A family with one U-Net, `denoiser`, that the diffusion program samples with.

    A family of it gives the loss, and the schedule, prediction type and defaults of sampling.
    """

    ema_networks = (DENOISER,)

    def check(self) -> None:
        """Raises :class:`InputError` where sizes, widths or labels don't go together."""
        config, data = self.config, self.data
        factor = 2 ** (len(config.multipliers) - 1)
        if data.height % factor or data.width % factor:
            raise InputError(
                f"{self.name} with {len(config.multipliers)} multipliers needs height and width divisible by "
                f"{factor}, got {data.height}x{data.width}; use fewer multipliers or resize the data"
            )
        heights = self._level_heights
        for resolution in config.attention_resolutions:
            if resolution not in heights:
                raise InputError(
                    f"attention_resolutions has {resolution}, but the levels are {list(heights)} pixels high"
                )
        for name, divisor in (("norm_groups", config.norm_groups), ("attention_heads", config.attention_heads)):
            if config.channels % divisor:
                raise InputError(f"channels must be divisible by {name}, got {config.channels} and {divisor}")
        if config.channels % 2:
            raise InputError(f"channels must be even, got {config.channels}")
        if config.conditional and data.num_classes is None:
            raise InputError(f"conditional needs labels, but {data.name!r} has none; set conditional=false")

    @property
    def _level_heights(self) -> tuple[int, ...]:
        return tuple(self.data.height // 2**level for level in range(len(self.config.multipliers)))

    @property
    @abstractmethod
    def schedule(self) -> ScheduleSpec:
        """How images become noise."""

    @property
    @abstractmethod
    def prediction_type(self) -> PredictionType:
        """What the denoiser tells."""

    @property
    @abstractmethod
    def defaults(self) -> DiffusionSettings:
        """How a model is sampled unless the caller says otherwise."""

    @property
    def num_classes(self) -> int | None:
        """The classes that the denoiser is told; None without labels."""
        return self.data.num_classes if self.config.conditional else None

    def build_networks(self) -> dict[str, nn.Module]:
        """The U-Net `denoiser`."""
        return {DENOISER: self.build_denoiser()}

    def build_denoiser(self) -> UNet:
        """A fresh U-Net."""
        config, heights = self.config, self._level_heights
        shape = UNetShape(
            image_channels=self.data.channels,
            channels=config.channels,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention_levels=frozenset(
                level for level, height in enumerate(heights) if height in config.attention_resolutions
            ),
            attention_heads=config.attention_heads,
            norm_groups=config.norm_groups,
            dropout=config.dropout,
            num_labels=None if self.num_classes is None else self.num_classes + 1,
        )
        return UNet(shape)

    def phases(self) -> tuple[Phase, ...]:
        """One phase: the denoiser."""
        return (Phase(DENOISER, trains=(DENOISER,), learning_rate=self.config.learning_rate),)

    def drop_labels(self, batch: Batch) -> tuple[Tensor, ...]:
        """The labels, a share of them replaced by "none" (the class number `num_classes`); () without labels."""
        if self.num_classes is None:
            return ()
        labels = require_labels(batch)
        dropped = torch.rand(len(labels), device=labels.device) < self.config.guidance_dropout
        return (labels.masked_fill(dropped, self.num_classes),)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """Denoiser, guidance and solver update as graph ``step``, the time embedding as graph ``embedding``."""
        return self._plan(networks, share_features=0)

    def sharing_plan(self, networks: Mapping[str, nn.Module], depth: int) -> ExportPlan:
        """With a graph ``shallow_step``, which computes `depth` blocks of the top level, 1 to `blocks`, anew."""
        return self._plan(networks, share_features=depth)

    def _plan(self, networks: Mapping[str, nn.Module], *, share_features: int) -> ExportPlan:
        return diffusion_plan(
            networks[DENOISER],
            self.data.image,
            self.schedule,
            prediction_type=self.prediction_type,
            defaults=self.defaults,
            name=f"{self.data.name}-{self.name}",
            family=self.name,
            num_classes=self.num_classes,
            class_names=None if self.num_classes is None else self.data.class_names,
            share_features=share_features,
        )
