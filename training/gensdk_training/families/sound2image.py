"""sound2image: images made from sounds, such as a written digit from a spoken one.

Papers: Reed, Akata, Yan, Logeswaran, Schiele & Lee 2016, "Generative Adversarial Text to Image Synthesis" (arXiv
1605.05396), with sounds in place of texts; the game is that of Miyato & Koyama 2018, "cGANs with Projection
Discriminator" (arXiv 1802.05637); the matching loss that of Xu et al. 2018, "AttnGAN" (arXiv 1711.10485, eq. 10).

Idea: sounds and images of one class are pairs, and no class is ever told to the generator: it gets what an encoder
heard. Two parts, one after the other:

- matching: an encoder of sounds and one of images learn to put a sound and an image of the same class near each
  other. In a batch, ``p(x_j | s_i) ~ exp(cos(s_i, x_j) / temperature)``, and ``-log p`` of those of the same class
  is what both minimize, from sounds to images and back. Of a sound they hear its log-mel spectrogram, which
  training masks, stretches and tilts, so that another speaker is less of a stranger.
- painting: with the sound's encoder as it is, G(z, e) plays the hinge game against D(x, e), which sees pairs. A
  pair is false if its image is made, and also if the image is real and goes with another sound (GAN-CLS, algorithm
  1). G is told besides how well the encoder of images finds what it made in its sound, with `match_weight`.

Networks: `listener` (:class:`SoundEncoder`), `viewer` (:class:`ImageEncoder`), which training alone needs,
`generator`, transposed convolutions as DCGAN has them, and `discriminator` (:class:`PairDiscriminator`).
Exports: two graphs, ``listener``, a sound to its embedding, which runs once for each sound that differs, and
``generator``, z and the embedding to the image. Samples take `audio`.

It does not: learn from pairs that have no classes, follow a sound in time, know what it was never shown (any sound
becomes an image that it knows), or separate a voice from other sounds around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_training.family import Batch, FamilyConfig, Loss, network_of, require_labels, require_sources
from gensdk_training.graphs.context_sampler import EMBEDDING, context_plan
from gensdk_training.matched_family import (
    DISCRIMINATOR,
    GENERATOR,
    MATCHING,
    VIEWER,
    MatchedConfig,
    MatchedFamily,
    Rate,
    Share,
    Weight,
    Width,
)
from gensdk_training.networks.sound_encoder import SoundEncoder, masked, stretched, tilted
from gensdk_training.networks.strided import halvings, up_stack
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated

LISTENER = "listener"


class Sound2ImageConfig(MatchedConfig):
    """Settings of :class:`Sound2Image`.

    bands: Of the log-mel spectrogram.
    listener_channels: Features after the first convolution of the encoder of sounds, doubling with its last two.
    masked_bands: Bands of the spectrogram that training hides at most.
    masked_pieces: Pieces in time of the spectrogram that training hides at most.
    stretch: Share by which training makes sounds longer or shorter at most.
    shift: Share by which training moves frequencies up or down at most.
    tilt: Nats by which training makes the ends of the spectrum louder or quieter at most.
    """

    steps: Annotated[int, Field(ge=1)] = 2300
    bands: Annotated[int, Field(ge=4, le=512)] = 40
    listener_channels: Width = 32
    viewer_channels: Width = 16
    matching_steps: Annotated[int, Field(ge=0)] = 800
    matching_rate: Rate = 2e-3
    masked_bands: Annotated[int, Field(ge=0)] = 8
    masked_pieces: Annotated[int, Field(ge=0)] = 6
    stretch: Share = 0.2
    shift: Share = 0.15
    tilt: Weight = 1.0
    ema_decay: Share = 0.998


class HeardGenerator(nn.Module):
    """G: z and an embedding to an image, by transposed convolutions (Radford et al. 2015, section 3)."""

    def __init__(self, inputs: int, channels: list[int], image: tuple[int, int, int]) -> None:
        super().__init__()
        self.body = up_stack(inputs, channels, image)

    def forward(self, z: Tensor, embedding: Tensor) -> Tensor:
        """`z` [B, latent] and `embedding` [B, F] of length 1 to images [B, C, H, W] in [-1, 1]."""
        scaled = embedding * embedding.shape[1] ** 0.5  # as large as z
        return torch.tanh(self.body(torch.cat((z, scaled), dim=1)))


@register("sound2image")
class Sound2Image(MatchedFamily[Sound2ImageConfig]):
    """A conditional GAN whose condition is what an encoder hears in a sound."""

    title = "images from sounds: a matching-aware GAN over an encoder of log-mel spectrograms"
    paper = "Reed et al. (2016), Generative Adversarial Text to Image Synthesis, with sounds in place of texts"
    Config: ClassVar[type[FamilyConfig]] = Sound2ImageConfig
    ema_networks = (LISTENER, GENERATOR)
    encoder = LISTENER
    starts_from = "sounds"

    def check(self) -> None:
        """Raises :class:`InputError` for images of a size that can't be halved, and for less than two classes."""
        halvings(self.data.height, self.data.width, family=self.name)
        if (self.data.num_classes or 0) < 2:
            raise InputError(
                f"{self.name} needs two classes or more, got {self.data.num_classes or 'none'}: sounds and images "
                "are pairs by them; bring labels"
            )

    def make_encoder(self) -> nn.Module:
        """Of sounds."""
        config = self.config
        return SoundEncoder(
            self.data.require_sounds().sample_rate,
            bands=config.bands,
            channels=config.listener_channels,
            features=config.features,
        )

    def make_generator(self, channels: list[int]) -> nn.Module:
        """Of images."""
        return HeardGenerator(self.config.latent + self.config.features, channels, self.data.image.shape)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The matching loss of both encoders; the hinge loss of D, half of its false pairs real images; or that of
        G, and `match_weight` times the matching loss of what it made."""
        listener = network_of(networks, LISTENER, SoundEncoder)
        labels, images = require_labels(batch), batch.images
        spectrogram = self._varied(listener.log_mel(require_sources(batch)[..., 0]))
        if phase == MATCHING:
            return self.match(listener.heard(spectrogram), networks[VIEWER](images), labels)
        with torch.no_grad(), evaluated(listener):
            embedding = listener.heard(spectrogram)
        z = torch.randn(len(embedding), self.config.latent, device=embedding.device)
        with torch.set_grad_enabled(phase == GENERATOR):
            fake = networks[GENERATOR](z, embedding)
        if phase == DISCRIMINATOR:
            return self.judge(networks, images, fake, embedding, labels != labels.roll(1))
        return self.fool(networks, fake, embedding, labels, None)

    def _varied(self, spectrogram: Tensor) -> Tensor:
        """As another speaker might have said it, at another pace, into another microphone, and partly covered."""
        config = self.config
        varied = tilted(stretched(spectrogram, bands=config.shift, time=config.stretch), config.tilt)
        return masked(varied, bands=config.masked_bands, pieces=config.masked_pieces)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """``generator`` and ``listener``; half precision covers convolutions and linear maps, not the
        spectrogram."""
        config, sounds = self.config, self.data.require_sounds()
        audio = TensorSpec(
            name=sounds.kind,
            dtype="float32",
            shape=("batch", sounds.samples),
            role="condition",
            value_range=(-1.0, 1.0),
        )
        heard = TensorSpec(name=EMBEDDING, dtype="float32", shape=("batch", config.features), role="context")
        return context_plan(
            self.name,
            self.data,
            [sounds],
            GraphSpec(name=LISTENER, inputs=(audio,), outputs=(heard,)),
            (networks[LISTENER], networks[GENERATOR]),
            latent=config.latent,
            half=("body", "head"),
        )
