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
from gensdk_runtime.text.vocabulary import vocabulary_bytes
from gensdk_training.captions import CaptionInfo
from gensdk_training.family import Batch, Family, FamilyConfig, Phase, require_labels, require_prompts
from gensdk_training.graphs.autoencoder import Autoencoder
from gensdk_training.graphs.diffusion_plan import TextConditioning, diffusion_plan
from gensdk_training.networks.text_encoder import TextEncoder
from gensdk_training.networks.unet import UNet, UNetShape
from gensdk_training.plan import ExportPlan

DENOISER, TEXT_ENCODER = "denoiser", "text_encoder"
CONTEXT = "encoder_hidden_states"
"""What diffusers calls the context of its U-Nets."""
SIZES = (
    "patch",
    "channels",
    "multipliers",
    "blocks",
    "attention_resolutions",
    "attention_heads",
    "norm_groups",
    "num_train_timesteps",
    "conditional",
    "text_features",
    "text_layers",
    "text_heads",
)
"""Settings that two runs share whose networks fit each other."""


class DenoiserConfig(FamilyConfig):
    """Settings of every family with a U-Net. The defaults suit small images such as 8x8 digits.

    channels: Features of the U-Net, times each of multipliers.
    multipliers: What channels are multiplied with on each level; each level has half the size of the one above.
    patch: Pixels on each side of a square that the U-Net sees as one position: 2 is a quarter of the work.
    blocks: Residual blocks of each level.
    attention_resolutions: Heights in pixels of the levels that attend; the middle block always does.
    attention_heads: Heads of each attention; they divide channels.
    norm_groups: Groups of each group norm; they divide channels.
    dropout: Share of the features that is left out in each block while it trains.
    num_train_timesteps: Time steps from image to noise.
    conditional: Whether the labels of the data are learnt, so that classes can be asked for and guided to.
    guidance_dropout: Share of labels, and of captions, that is left out in training, for guidance.
    text_features: Features of each word, of data with captions; 0: captions are not learnt.
    text_layers: Layers of the encoder of captions.
    text_heads: Heads of each attention in it; they divide text_features.
    word_dropout: Share of the words of captions that training leaves out or takes for unknown, so that a few words
        say enough.
    """

    steps: Annotated[int, Field(ge=1)] = 6000
    channels: Annotated[int, Field(ge=2, le=65536)] = 16
    multipliers: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=8)
    ] = (1, 2)
    patch: Annotated[int, Field(ge=1, le=16)] = 1
    blocks: Annotated[int, Field(ge=1, le=1000)] = 2
    attention_resolutions: tuple[int, ...] = ()
    attention_heads: Annotated[int, Field(ge=1, le=65536)] = 1
    norm_groups: Annotated[int, Field(ge=1, le=65536)] = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    conditional: bool = False
    guidance_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    text_features: Annotated[int, Field(ge=0, le=65536)] = 64
    text_layers: Annotated[int, Field(ge=1, le=64)] = 1
    text_heads: Annotated[int, Field(ge=1, le=65536)] = 4
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3


DenoiserConfigT = TypeVar("DenoiserConfigT", bound=DenoiserConfig)


class DenoiserFamily(Family[DenoiserConfigT]):
    """A family with one U-Net, `denoiser`, that the diffusion program samples with, and an encoder of captions.

    A family of it gives the loss, and the schedule, prediction type and defaults of sampling.
    """

    @property
    def ema_networks(self) -> tuple[str, ...]:  # type: ignore[override]
        """The denoiser, and the encoder of captions."""
        return (DENOISER,) if self.captions is None else (DENOISER, TEXT_ENCODER)

    def check(self) -> None:
        """Raises :class:`InputError` where sizes, widths or labels don't go together."""
        config, data = self.config, self.data
        factor, (_, height, width) = config.patch * 2 ** (len(config.multipliers) - 1), self.denoised_shape
        if height % factor or width % factor:
            raise InputError(
                f"{self.name} with {len(config.multipliers)} multipliers and patch {config.patch} needs height "
                f"and width divisible by {factor}, got {height}x{width}; use fewer, or resize the data"
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
        if self.captions is not None and config.text_features % config.text_heads:
            raise InputError(
                f"expected text_features as a multiple of text_heads, got {config.text_features} and "
                f"{config.text_heads}"
            )
        if self.teaching is not None and self.captions is not None:
            raise InputError(
                f"{self.teaching} learns from a teacher without captions; set text_features=0, or leave it out"
            )
        if config.conditional and data.num_classes is None:
            raise InputError(f"conditional needs labels, but {data.name!r} has none; set conditional=false")

    @property
    def teaching(self) -> str | None:
        """The setting that names a teacher, where there is one; None otherwise."""
        return None

    @property
    def denoised_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of what the denoiser sees: that of the images, unless a family has latents for them."""
        return (self.data.channels, self.data.height, self.data.width)

    def around(self, networks: Mapping[str, nn.Module]) -> Autoencoder | None:
        """What leads from images to what the denoiser sees and back; None where it sees them as they are."""
        return None

    @property
    def _level_heights(self) -> tuple[int, ...]:
        height, patch = self.denoised_shape[1], self.config.patch
        return tuple(height // (patch * 2**level) for level in range(len(self.config.multipliers)))

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

    @property
    def captions(self) -> CaptionInfo | None:
        """The captions that the denoiser is told; None without."""
        return self.data.captions if self.config.text_features else None

    def build_networks(self) -> dict[str, nn.Module]:
        """The U-Net `denoiser`, and for captions their `text_encoder`."""
        captions, config = self.captions, self.config
        networks: dict[str, nn.Module] = {DENOISER: self.build_denoiser()}
        if captions is not None:
            networks[TEXT_ENCODER] = TextEncoder(
                captions.vocabulary.size,
                captions.row_length,
                features=config.text_features,
                layers=config.text_layers,
                heads=config.text_heads,
                rest=captions.rest,
                dropout=config.dropout,
            )
        return networks

    def build_denoiser(self) -> UNet:
        """A fresh U-Net."""
        config, heights = self.config, self._level_heights
        shape = UNetShape(
            image_channels=self.denoised_shape[0],
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
            patch=config.patch,
            context_features=None if self.captions is None else config.text_features,
        )
        return UNet(shape)

    def phases(self) -> tuple[Phase, ...]:
        """One phase: the denoiser, and the encoder of captions."""
        trains = (DENOISER,) if self.captions is None else (DENOISER, TEXT_ENCODER)
        return (Phase(DENOISER, trains=trains, learning_rate=self.config.learning_rate),)

    def told(self, networks: Mapping[str, nn.Module], batch: Batch) -> tuple[Tensor, ...]:
        """What the denoiser is told of each image beside its time step: its label, and what its caption became,
        with some words left out; of a share of the images neither, for guidance. () where there is nothing to
        tell."""
        captions, none = self.captions, self.num_classes
        if none is None and captions is None:
            return ()
        unasked = torch.rand(len(batch.images), device=batch.images.device) < self.config.guidance_dropout
        labels = () if none is None else (require_labels(batch).masked_fill(unasked, none),)
        if captions is None:
            return labels
        prompts = captions.thinned(require_prompts(batch), self.config.word_dropout, unasked)
        return (*labels, networks[TEXT_ENCODER](prompts))

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
            text=self._text(networks),
            share_features=share_features,
            autoencoder=self.around(networks),
        )

    def _text(self, networks: Mapping[str, nn.Module]) -> TextConditioning | None:
        captions = self.captions
        if captions is None:
            return None
        return TextConditioning(
            networks[TEXT_ENCODER],
            captions.prompt,
            {CONTEXT: (captions.row_length, self.config.text_features)},
            {captions.prompt.vocabulary: vocabulary_bytes(captions.vocabulary)},
        )
