"""text2image: images made from texts, by a GAN whose discriminator is asked whether image and text go together.

Papers: Reed, Akata, Yan, Logeswaran, Schiele & Lee 2016, "Generative Adversarial Text to Image Synthesis" (arXiv
1605.05396, section 4.2, algorithm 1: GAN-CLS); the projection is that of Miyato & Koyama 2018 (arXiv 1802.05637),
the matching loss that of Xu et al. 2018, "AttnGAN" (arXiv 1711.10485, eq. 10).

Idea: two parts, one after the other, as the paper has them:

- matching: an encoder of captions and one of images learn to put a caption and its image near each other. In a
  batch, ``p(x_j | t_i) ~ exp(cos(t_i, x_j) / temperature)``, and ``-log p`` of those of the same caption is what
  both minimize, from captions to images and back.
- painting: with the encoder of captions as it is, G(z, t) plays the hinge game against D(x, t), which sees pairs:
  (real image, right words) is real; (real image, wrong words) and (made image, right words) are not, half of the
  loss each. G is told besides how well the encoder of images finds what it made in its caption, `match_weight`.

Words are left out in training or said to be unknown, and a share of the captions is empty, so that a few words,
new words and no words say something too.

What goes wrong, and what is done about it. Captions are ignored where D looks at images alone: `right_conditions`,
which a run logs, is the share of real images that D gives more with their own words than with others'; near one
half it listens to none, and G has nothing to learn from it, which the diagnosis of the run says. Late in training
D knows a small data set by heart, and G collapses: D sees images moved by up to `shift`, its weights are divided
by their norm or held back by `r1_weight`, step sizes fall to 0, and what is exported is a moving average.

Networks: `text_encoder` (:class:`PooledTextEncoder`), `viewer` (:class:`ImageEncoder`), for training alone,
`generator`, transposed convolutions as DCGAN has them, by choice with conditioning augmentation (Zhang et al.
2017, "StackGAN", arXiv 1612.03242, section 3.2), and `discriminator` (:class:`PairDiscriminator`).
Exports: two graphs, ``text_encoder``, tokens to an embedding, which runs once for each text that differs, and
``generator``, z and the embedding to the image. Samples take `prompt`; the empty one stands for any caption.

It does not: attend to single words while it paints, interpolate between captions in training (GAN-INT), grow its
images in stages, or lead away from a text (no negative prompts, no guidance).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec
from gensdk_runtime.text.vocabulary import vocabulary_bytes
from gensdk_training.captions import CaptionInfo
from gensdk_training.family import Batch, FamilyConfig, Loss, network_of, require_prompts
from gensdk_training.graphs.context_sampler import EMBEDDING, context_plan
from gensdk_training.losses.gradient_penalty import r1_penalty
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
from gensdk_training.networks.image_pairs import Wrap
from gensdk_training.networks.shifted import shifted
from gensdk_training.networks.strided import halvings, up_stack
from gensdk_training.networks.text_encoder import PooledTextEncoder, TextEncoder
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated

TEXT_ENCODER = "text_encoder"


class Text2ImageConfig(MatchedConfig):
    """Settings of :class:`Text2Image`.

    text_features: Features of each word.
    text_layers: Layers of the encoder of captions.
    text_heads: Heads of each attention in it; they divide text_features.
    word_dropout: Share of the words of captions that training leaves out or takes for unknown.
    empty_share: Share of the captions that painting leaves out whole, so that no text is something too.
    condition_augmentation: Whether the generator draws its condition around the embedding.
    augmentation_weight: Of the divergence of those draws from a standard normal. With condition_augmentation.
    regularization: What keeps the discriminator smooth: its weights divided by their norm, or a penalty (r1).
    r1_weight: Of the squared gradient of the discriminator on real images. With regularization=r1.
    shift: Share of the size by which images are moved at most before a network of training sees them.
    """

    batch_size: Annotated[int, Field(ge=2, le=65536)] = 64
    steps: Annotated[int, Field(ge=1)] = 6000
    text_features: Width = 64
    text_layers: Annotated[int, Field(ge=1, le=64)] = 1
    text_heads: Annotated[int, Field(ge=1, le=4096)] = 4
    features: Width = 64
    generator_learning_rate: Rate = 4e-4
    discriminator_learning_rate: Rate = 8e-4
    word_dropout: Share = 0.1
    empty_share: Share = 0.1
    condition_augmentation: bool = False
    augmentation_weight: Weight = 1.0
    match_weight: Weight = 0.5
    regularization: Literal["spectral_norm", "r1"] = "spectral_norm"
    r1_weight: Weight = 1.0
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.125


class ToldGenerator(nn.Module):
    """G: z and an embedding to an image, by transposed convolutions (Radford et al. 2015, section 3).

    `augmented`: its condition is drawn, ``mu(t) + sigma(t) * eps``, eps being the last `features` values of z
    (Zhang et al. 2017, section 3.2); otherwise it is the embedding.
    """

    def __init__(
        self, latent: int, features: int, channels: list[int], image: tuple[int, int, int], *, augmented: bool
    ) -> None:
        super().__init__()
        self.latent = latent
        self.spread = nn.Linear(features, 2 * features) if augmented else None
        self.body = up_stack(latent + features, channels, image)

    def forward(self, z: Tensor, embedding: Tensor) -> Tensor:
        """`z` [B, latent (+ features)] and `embedding` [B, features] of length 1 to images in [-1, 1]."""
        told = embedding * embedding.shape[1] ** 0.5  # as large as z
        if self.spread is not None:
            mean, log_deviation = self.spread(told).chunk(2, dim=1)
            told = mean + torch.exp(log_deviation) * z[:, self.latent :]
        return torch.tanh(self.body(torch.cat((z[:, : self.latent], told), dim=1)))

    def divergence(self, embedding: Tensor) -> Tensor:
        """``KL(N(mu, sigma^2) || N(0, 1))`` of what the condition is drawn from, a mean over its values; 0 where
        nothing is drawn."""
        if self.spread is None:
            return embedding.new_zeros(())
        mean, log_deviation = self.spread(embedding * embedding.shape[1] ** 0.5).chunk(2, dim=1)
        divergence: Tensor = (mean.square() + torch.exp(2 * log_deviation) - 1 - 2 * log_deviation).mean() / 2
        return divergence


@register("text2image")
class Text2Image(MatchedFamily[Text2ImageConfig]):
    """A conditional GAN whose condition is what an encoder reads in a caption."""

    title = "images from texts: a matching-aware GAN (GAN-CLS) over an encoder of captions"
    paper = "Reed, Akata, Yan, Logeswaran, Schiele & Lee (2016), Generative Adversarial Text to Image Synthesis"
    Config: ClassVar[type[FamilyConfig]] = Text2ImageConfig
    ema_networks = (TEXT_ENCODER, GENERATOR)
    encoder = TEXT_ENCODER
    needs_captions = True

    def check(self) -> None:
        """Raises :class:`InputError` for images of a size that can't be halved, and for heads that don't fit."""
        config = self.config
        halvings(self.data.height, self.data.width, family=self.name)
        if config.text_features % config.text_heads:
            raise InputError(
                f"expected text_features as a multiple of text_heads, got {config.text_features} and "
                f"{config.text_heads}"
            )

    @property
    def captions(self) -> CaptionInfo:
        """What captions are."""
        if self.data.captions is None:
            raise InputError(f"{self.data.name!r} has no captions; give --captions")
        return self.data.captions

    @property
    def noise(self) -> int:
        """Values in z, those of conditioning augmentation among them."""
        return self.config.latent + (self.config.features if self.config.condition_augmentation else 0)

    @property
    def wrap(self) -> Wrap | None:
        """Nothing, where a penalty does it."""
        return None if self.config.regularization == "spectral_norm" else _as_it_is

    def make_encoder(self) -> nn.Module:
        """Of captions."""
        config, captions = self.config, self.captions
        words = TextEncoder(
            captions.vocabulary.size,
            captions.row_length,
            features=config.text_features,
            layers=config.text_layers,
            heads=config.text_heads,
            rest=captions.rest,
        )
        return PooledTextEncoder(words, config.features)

    def make_generator(self, channels: list[int]) -> nn.Module:
        """By choice with conditioning augmentation."""
        config = self.config
        return ToldGenerator(
            config.latent,
            config.features,
            channels,
            self.data.image.shape,
            augmented=config.condition_augmentation,
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The matching loss of both encoders; the hinge loss of D, half of its false pairs real images; or that of
        G, and `match_weight` times the matching loss of what it made."""
        prompts = require_prompts(batch)
        same = torch.unique(prompts, dim=0, return_inverse=True)[1]
        config = self.config
        if phase == MATCHING:
            none = torch.zeros_like(same, dtype=torch.bool)  # here every caption says something
            read = networks[TEXT_ENCODER](self.captions.thinned(prompts, config.word_dropout, none))
            return self.match(read, networks[VIEWER](self.before_judge(batch.images)), same)
        empty = torch.arange(len(prompts), device=prompts.device) < int(config.empty_share * len(prompts))
        with torch.no_grad(), evaluated(networks[TEXT_ENCODER]):
            embedding = networks[TEXT_ENCODER](self.captions.thinned(prompts, config.word_dropout, empty))
        z = torch.randn(len(prompts), self.noise, device=prompts.device)
        with torch.set_grad_enabled(phase == GENERATOR):
            fake = networks[GENERATOR](z, embedding)
        if phase == DISCRIMINATOR:
            wrong = (same != same.roll(1)) & ~empty.roll(1)
            return self.judge(networks, batch.images, fake, embedding, wrong)
        loss = self.fool(networks, fake, embedding, same, ~empty)
        spread = network_of(networks, GENERATOR, ToldGenerator).divergence(embedding)
        return Loss(loss.total + config.augmentation_weight * spread, loss.logs)

    def before_judge(self, images: Tensor) -> Tensor:
        """Moved by up to `shift`."""
        return shifted(images, self.config.shift)

    @property
    def penalized(self) -> bool:
        """By choice."""
        return self.config.regularization == "r1"

    def penalty(self, on_real: Tensor, real: Tensor) -> Tensor:
        """R1."""
        return self.config.r1_weight * r1_penalty(on_real, real)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """``generator`` and ``text_encoder``; half precision covers convolutions and linear maps, not what words
        stand for."""
        config, captions = self.config, self.captions
        prompt = TensorSpec(name="prompt", dtype="int64", shape=("batch", captions.row_length), role="condition")
        read = TensorSpec(name=EMBEDDING, dtype="float32", shape=("batch", config.features), role="context")
        plan = context_plan(
            self.name,
            self.data,
            [captions.prompt],
            GraphSpec(name=TEXT_ENCODER, inputs=(prompt,), outputs=(read,)),
            (networks[TEXT_ENCODER], networks[GENERATOR]),
            latent=self.noise,
            half=(*(f"words.layers.{layer}" for layer in range(config.text_layers)), "head"),
        )
        return replace(plan, files={captions.prompt.vocabulary: vocabulary_bytes(captions.vocabulary)})


def _as_it_is(layer: nn.Module) -> nn.Module:
    return layer
