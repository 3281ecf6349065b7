"""What GANs have in common whose condition an encoder reads in a text or a sound: first it learns to match one of
images, then a generator and a judge of pairs play over what it says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_training.family import Family, FamilyConfig, Loss, Phase
from gensdk_training.losses.adversarial import generator_loss
from gensdk_training.losses.matching import matching_loss
from gensdk_training.networks.image_pairs import ImageEncoder, PairDiscriminator, Wrap
from gensdk_training.networks.initialization import initialize
from gensdk_training.networks.strided import halvings, widths
from gensdk_training.optim import Schedule
from gensdk_training.running_statistics import evaluated

MATCHING, DISCRIMINATOR, GENERATOR = "matching", "discriminator", "generator"
VIEWER = "viewer"
Width = Annotated[int, Field(ge=1, le=4096)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]


class MatchedConfig(FamilyConfig):
    """Settings of every family whose encoders learn to match before the game.

    viewer_channels: Features after the first convolution of the encoder of images, doubling with each halving.
    features: Values of an embedding.
    latent: Values in z, standard normal.
    generator_channels: Features before the generator's last convolution, doubling towards its first.
    discriminator_channels: Features after the discriminator's first convolution, doubling with each halving.
    matching_steps: Steps of the first part; those that are left are the second.
    matching_rate: Step size of the optimizer of both encoders.
    temperature: By which cosines are divided: the less, the more counts the nearest.
    match_weight: Of the matching loss in what the generator minimizes.
    """

    batch_size: Annotated[int, Field(ge=2, le=65536)] = 32
    lr_schedule: Schedule = "linear"
    viewer_channels: Width = 32
    features: Width = 32
    latent: Width = 32
    generator_channels: Width = 32
    discriminator_channels: Width = 32
    matching_steps: Annotated[int, Field(ge=0)] = 1000
    matching_rate: Rate = 1e-3
    generator_learning_rate: Rate = 5e-4
    discriminator_learning_rate: Rate = 5e-4
    beta1: Share = 0.0
    beta2: Share = 0.9
    temperature: Annotated[float, Field(gt=0)] = 0.1
    match_weight: Weight = 0.25


MatchedConfigT = TypeVar("MatchedConfigT", bound=MatchedConfig)


class MatchedFamily(Family[MatchedConfigT]):
    """A family of two parts: `matching`, then `discriminator` and `generator`."""

    encoder: ClassVar[str]
    """The network that reads the condition."""

    @abstractmethod
    def make_encoder(self) -> nn.Module:
        """Conditions to embeddings [B, features] of length 1."""

    @abstractmethod
    def make_generator(self, channels: list[int]) -> nn.Module:
        """z and embeddings to images; `channels`: from its first convolution on."""

    @property
    def wrap(self) -> Wrap | None:
        """What each layer of the discriminator is put into; None for its own."""
        return None

    def build_networks(self) -> dict[str, nn.Module]:
        """The encoder, `viewer`, `generator` and `discriminator`."""
        config, image = self.config, self.data.image.shape
        times = halvings(self.data.height, self.data.width, family=self.name)
        seen, wrap = widths(config.discriminator_channels, times), self.wrap
        networks: dict[str, nn.Module] = {
            self.encoder: self.make_encoder(),
            VIEWER: ImageEncoder(image, widths(config.viewer_channels, times), config.features),
            GENERATOR: self.make_generator(widths(config.generator_channels, times)[::-1]),
            DISCRIMINATOR: PairDiscriminator(
                image, seen, config.features, **({} if wrap is None else {"wrap": wrap})
            ),
        }
        initialize(networks[GENERATOR])
        initialize(networks[DISCRIMINATOR])
        return networks

    def phases(self) -> tuple[Phase, ...]:
        """`matching`, `discriminator`, `generator`; :meth:`rests` says when each has its turn."""
        config = self.config
        betas = (config.beta1, config.beta2)
        return (
            Phase(MATCHING, (self.encoder, VIEWER), config.matching_rate),
            Phase(DISCRIMINATOR, (DISCRIMINATOR,), config.discriminator_learning_rate, betas),
            Phase(GENERATOR, (GENERATOR,), config.generator_learning_rate, betas),
        )

    def rests(self, phase: str, step: int) -> bool:
        """The first part ends where the second begins."""
        return (phase == MATCHING) != (step < self.config.matching_steps)

    def notes(self) -> tuple[str, ...]:
        """What a run has no steps for."""
        config = self.config
        if config.steps > config.matching_steps:
            return ()
        return (
            f"steps {config.steps} end before the game, which begins at step {config.matching_steps}: the "
            "generator stays as it began; give more steps, or fewer matching_steps",
        )

    def match(self, read: Tensor, seen: Tensor, same: Tensor) -> Loss:
        """The loss of both encoders, `read` and `seen` [B, features]; `same`: each one's kind [B]."""
        loss, right = matching_loss(read, seen, same, self.config.temperature)
        return Loss(loss, {"right_pairs": right})

    def fool(
        self, networks: Mapping[str, nn.Module], fake: Tensor, embedding: Tensor, same: Tensor, told: Tensor | None
    ) -> Loss:
        """What the generator minimizes: to be taken for real, and to be found by its condition, where it was
        `told` [B] one (None: everywhere)."""
        config = self.config
        (on_fake,) = networks[DISCRIMINATOR](self.before_judge(fake), embedding)
        chosen = slice(None) if told is None else told
        with evaluated(networks[VIEWER]):
            seen = networks[VIEWER](fake[chosen])
        match, right = matching_loss(embedding[chosen], seen, same[chosen], config.temperature)
        logs = {"on_fake": on_fake.detach().mean(), "match": match.detach(), "right_pairs": right}
        return Loss(generator_loss("hinge", on_fake) + config.match_weight * match, logs)

    def judge(
        self, networks: Mapping[str, nn.Module], images: Tensor, fake: Tensor, embedding: Tensor, wrong: Tensor
    ) -> Loss:
        """``E max(0, 1 - D(x, e)) + E max(0, 1 + D(G(z, e), e)) / 2 + E max(0, 1 + D(x, e')) / 2``, the hinge form
        of GAN-CLS (Reed et al. 2016, algorithm 1).

        e' are the embeddings of another image, `wrong` [B] where they say something else. `right_conditions`: the
        share of images that D gives more with their own than with those.
        """
        judge, real = networks[DISCRIMINATOR], self.before_judge(images).requires_grad_(self.penalized)
        (on_fake,) = judge(self.before_judge(fake), embedding)
        on_real, on_wrong = judge(real, embedding, embedding.roll(1, dims=0))
        total = torch.relu(1 - on_real).mean() + torch.relu(1 + on_fake).mean() / 2
        total = total + (torch.relu(1 + on_wrong) * wrong).mean() / 2
        with torch.no_grad():
            right = ((on_real > on_wrong) & wrong).sum() / wrong.sum().clamp(min=1)
            logs = {"distance": on_real.mean() - on_fake.mean(), "right_conditions": right}
        return Loss(total + self.penalty(on_real, real) if self.penalized else total, logs)

    def before_judge(self, images: Tensor) -> Tensor:
        """What is done to images [B, C, H, W] before the discriminator sees them."""
        return images

    @property
    def penalized(self) -> bool:
        """Whether the discriminator's loss has a :meth:`penalty`."""
        return False

    def penalty(self, on_real: Tensor, real: Tensor) -> Tensor:
        """What is added to the discriminator's loss, of what it gives `real` images [B, C, H, W]: 0."""
        return on_real.new_zeros(())
