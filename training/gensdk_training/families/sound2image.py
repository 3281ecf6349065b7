"""sound2image: images made from sounds, such as a written digit from a spoken one.

Papers: Reed, Akata, Yan, Logeswaran, Schiele & Lee 2016, "Generative Adversarial Text to Image Synthesis" (arXiv
1605.05396), with sounds in place of texts; the game is that of Miyato & Koyama 2018, "cGANs with Projection
Discriminator" (arXiv 1802.05637); the matching loss that of Xu et al. 2018, "AttnGAN" (arXiv 1711.10485, eq. 10).

Idea: sounds and images of one class are pairs, and no class is ever told to the generator: it gets what an encoder
heard. Two parts, one after the other:

- listening: an encoder of sounds and one of images learn to put a sound and an image of the same class near each
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
from gensdk_training.family import (
    Batch,
    Family,
    FamilyConfig,
    Loss,
    Phase,
    network_of,
    require_labels,
    require_sources,
)
from gensdk_training.graphs.context_sampler import EMBEDDING, context_plan
from gensdk_training.losses.adversarial import generator_loss
from gensdk_training.losses.matching import matching_loss
from gensdk_training.networks.image_pairs import ImageEncoder, PairDiscriminator
from gensdk_training.networks.initialization import initialize
from gensdk_training.networks.sound_encoder import SoundEncoder, masked, stretched, tilted
from gensdk_training.networks.strided import halvings, up_stack, widths
from gensdk_training.optim import Schedule
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated

LISTENING, DISCRIMINATOR, GENERATOR = "listening", "discriminator", "generator"
LISTENER, VIEWER = "listener", "viewer"
Width = Annotated[int, Field(ge=1, le=4096)]
Rate = Annotated[float, Field(gt=0)]


class Sound2ImageConfig(FamilyConfig):
    """Settings of :class:`Sound2Image`.

    bands: Of the log-mel spectrogram.
    listener_channels: Features after the first convolution of the encoder of sounds, doubling with its last two.
    viewer_channels: Features after the first convolution of the encoder of images, doubling with each halving.
    features: Values of an embedding.
    latent: Values in z, standard normal.
    generator_channels: Features before the generator's last convolution, doubling towards its first.
    discriminator_channels: Features after the discriminator's first convolution, doubling with each halving.
    listening_steps: Steps of the first part; those that are left are the second.
    listening_rate: Step size of the optimizer of both encoders.
    temperature: By which cosines are divided: the less, the more counts the nearest.
    masked_bands: Bands of the spectrogram that training hides at most.
    masked_pieces: Pieces in time of the spectrogram that training hides at most.
    stretch: Share by which training makes sounds longer or shorter at most.
    shift: Share by which training moves frequencies up or down at most.
    tilt: Nats by which training makes the ends of the spectrum louder or quieter at most.
    match_weight: Of the matching loss in what the generator minimizes.
    """

    batch_size: Annotated[int, Field(ge=2, le=65536)] = 32
    steps: Annotated[int, Field(ge=1)] = 2300
    lr_schedule: Schedule = "linear"
    bands: Annotated[int, Field(ge=4, le=512)] = 40
    listener_channels: Width = 32
    viewer_channels: Width = 16
    features: Width = 32
    latent: Width = 32
    generator_channels: Width = 32
    discriminator_channels: Width = 32
    listening_steps: Annotated[int, Field(ge=0)] = 800
    listening_rate: Rate = 2e-3
    generator_learning_rate: Rate = 5e-4
    discriminator_learning_rate: Rate = 5e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.9
    temperature: Annotated[float, Field(gt=0)] = 0.1
    masked_bands: Annotated[int, Field(ge=0)] = 8
    masked_pieces: Annotated[int, Field(ge=0)] = 6
    stretch: Annotated[float, Field(ge=0, lt=1)] = 0.2
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.15
    tilt: Annotated[float, Field(ge=0)] = 1.0
    match_weight: Annotated[float, Field(ge=0)] = 0.25
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998


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
class Sound2Image(Family[Sound2ImageConfig]):
    """A conditional GAN whose condition is what an encoder hears in a sound."""

    title = "images from sounds: a matching-aware GAN over an encoder of log-mel spectrograms"
    paper = "Reed et al. (2016), Generative Adversarial Text to Image Synthesis, with sounds in place of texts"
    Config: ClassVar[type[FamilyConfig]] = Sound2ImageConfig
    ema_networks = (LISTENER, GENERATOR)
    starts_from = "sounds"

    def check(self) -> None:
        """Raises :class:`InputError` for images of a size that can't be halved, and for less than two classes."""
        halvings(self.data.height, self.data.width, family=self.name)
        if (self.data.num_classes or 0) < 2:
            raise InputError(
                f"{self.name} needs two classes or more, got {self.data.num_classes or 'none'}: sounds and images "
                "are pairs by them; bring labels"
            )

    def build_networks(self) -> dict[str, nn.Module]:
        """`listener`, `viewer`, `generator` and `discriminator`."""
        config, image, sounds = self.config, self.data.image.shape, self.data.require_sounds()
        times = halvings(self.data.height, self.data.width, family=self.name)
        networks: dict[str, nn.Module] = {
            LISTENER: SoundEncoder(
                sounds.sample_rate,
                bands=config.bands,
                channels=config.listener_channels,
                features=config.features,
            ),
            VIEWER: ImageEncoder(image, widths(config.viewer_channels, times), config.features),
            GENERATOR: HeardGenerator(
                config.latent + config.features, widths(config.generator_channels, times)[::-1], image
            ),
            DISCRIMINATOR: PairDiscriminator(image, widths(config.discriminator_channels, times), config.features),
        }
        initialize(networks[GENERATOR])
        initialize(networks[DISCRIMINATOR])
        return networks

    def phases(self) -> tuple[Phase, ...]:
        """`listening`, `discriminator`, `generator`; :meth:`rests` says when each has its turn."""
        config = self.config
        betas = (config.beta1, config.beta2)
        return (
            Phase(LISTENING, (LISTENER, VIEWER), config.listening_rate),
            Phase(DISCRIMINATOR, (DISCRIMINATOR,), config.discriminator_learning_rate, betas),
            Phase(GENERATOR, (GENERATOR,), config.generator_learning_rate, betas),
        )

    def rests(self, phase: str, step: int) -> bool:
        """The first part ends where the second begins."""
        return (phase == LISTENING) != (step < self.config.listening_steps)

    def notes(self) -> tuple[str, ...]:
        """What a run has no steps for."""
        config = self.config
        if config.steps > config.listening_steps:
            return ()
        return (
            f"steps {config.steps} end before the game, which begins at step {config.listening_steps}: the "
            "generator stays as it began; give more steps, or fewer listening_steps",
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The matching loss of both encoders; the hinge loss of D, half of its false pairs real images; or that of
        G, and `match_weight` times the matching loss of what it made."""
        listener = network_of(networks, LISTENER, SoundEncoder)
        viewer, labels, config = networks[VIEWER], require_labels(batch), self.config
        spectrogram = self._varied(listener.log_mel(require_sources(batch)[..., 0]))
        if phase == LISTENING:
            heard, seen = listener.heard(spectrogram), viewer(batch.images)
            loss, right = matching_loss(heard, seen, labels, config.temperature)
            return Loss(loss, {"right_pairs": right})
        with torch.no_grad(), evaluated(listener):
            embedding = listener.heard(spectrogram)
        z = torch.randn(len(embedding), config.latent, device=embedding.device)
        with torch.set_grad_enabled(phase == GENERATOR):
            fake = networks[GENERATOR](z, embedding)
        judge = networks[DISCRIMINATOR]
        (on_fake,) = judge(fake, embedding)
        if phase == DISCRIMINATOR:
            on_real, on_wrong = judge(batch.images, embedding, embedding.roll(1, dims=0))
            wrong = labels != labels.roll(1)
            total = torch.relu(1 - on_real).mean() + torch.relu(1 + on_fake).mean() / 2
            total = total + (torch.relu(1 + on_wrong) * wrong).mean() / 2
            logs = {"distance": (on_real.mean() - on_fake.mean()).detach(), "on_wrong": on_wrong.detach().mean()}
            return Loss(total, logs)
        with evaluated(viewer):
            match, right = matching_loss(embedding, viewer(fake), labels, config.temperature)
        logs = {"on_fake": on_fake.detach().mean(), "match": match.detach(), "right_pairs": right}
        return Loss(generator_loss("hinge", on_fake) + config.match_weight * match, logs)

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
