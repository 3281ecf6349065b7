"""MuseGAN: phrases of several tracks from four kinds of noise, judged by a critic, in whole notes.

Papers: Dong, Hsiao, Yang & Yang 2018, "MuseGAN: Multi-track Sequential Generative Adversarial Networks for
Symbolic Music Generation and Accompaniment" (arXiv 1709.06298); Dong & Yang 2018, "Convolutional Generative
Adversarial Networks with Binary Neurons for Polyphonic Music Generation" (arXiv 1804.09399).

Idea: z has four kinds of parts. *Chord* is common to all tracks and changes from bar to bar, *style* is common
and stays, *melody* is of one track and changes, *groove* is of one track and stays (the hybrid model, section
"MuseGAN" of the first paper). A temporal network makes of chord and of melody one vector for each bar; a bar
generator, of each track's own or one for all, makes a bar of them. Training is by WGAN-GP, or by the
non-saturating loss.

A roll has notes, and no shades of them. Networks that make shades are cut at a threshold afterwards, and their
notes fall into fragments, since the critic never saw what comes out. Here *binary neurons* end the generator:
the critic sees what an application gets, gradients go straight through, and no threshold is left to choose.
`one_hot` neurons have one note at a time in each track, as voices and melodies do.

`rhythm_weight` and `harmony_weight` add rules: onsets at each step of a bar, short notes, intervals between
tracks and those within a phrase, in the mean over a batch as in the data. Their weights are 0 by
default: large ones hold the critic's lesson up. (On chorales its distance was 7 after 150 steps without rules, 13
with a weight of 2 for rhythm, and 17 with 10 for harmony.)

Networks: `generator` and `discriminator` (the critic), which sees the roll, where notes begin and end, and chroma.
Data: piano rolls of a few bars.
Exports: one graph, ``generator``: z, [chord, style, melody of each track, groove of each track], each of `latent`
values, to the roll. So an application can keep the chord and style of one piece, and take the melody of another.

It does not: write a phrase to go with a given track (the paper's accompaniment), go on from a phrase, know of
keys or of voice leading but by the critic, or tell a held note from one that is struck again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.pianoroll import RollFormat
from gensdk_runtime.spec.signature import TensorSpec
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, network_of
from gensdk_training.gan_family import DISCRIMINATOR, GENERATOR, Beta, Rate
from gensdk_training.graphs.latent_sampler import latent_plan
from gensdk_training.losses.adversarial import critic_loss, generator_loss
from gensdk_training.losses.gradient_penalty import gradient_penalty
from gensdk_training.losses.music_rules import harmony_rule, rhythm_rule
from gensdk_training.networks.musegan import MuseCritic, MuseGenerator
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register


class MuseganConfig(FamilyConfig):
    """Settings of :class:`Musegan`; the defaults are those of the paper's small model where it has them.

    latent: Values of each part of z: chord, style, and melody and groove of each track.
    generator_channels: Features before the bar generator's last layer, two, four and eight times as many before.
    discriminator_channels: Features of the critic's first layers; two and four times as many behind.
    private: Whether each track has a bar generator of its own; otherwise one serves all.
    neurons: Any notes of a track at once (binary), or one at a time and silence (one_hot).
    stochastic: Whether the neurons draw, from noise that goes into the graph, in place of a threshold.
    loss: Wasserstein with gradient penalty, or the non-saturating one (binary cross entropy), without.
    penalty: Weight of the gradient penalty. With wasserstein.
    rhythm_weight: Weight of the rule of rhythm in the generator's loss; 0 leaves it out.
    harmony_weight: Weight of the rule of harmony in the generator's loss; 0 leaves it out.
    discriminator_steps: Steps of the critic for each of the generator.
    """

    latent: Annotated[int, Field(ge=1, le=1024)] = 32
    generator_channels: Annotated[int, Field(ge=1, le=1024)] = 32
    discriminator_channels: Annotated[int, Field(ge=1, le=1024)] = 64
    private: bool = True
    neurons: Literal["binary", "one_hot"] = "binary"
    stochastic: bool = False
    loss: Literal["wasserstein", "non_saturating"] = "wasserstein"
    penalty: Annotated[float, Field(ge=0)] = 10.0
    rhythm_weight: Annotated[float, Field(ge=0)] = 0.0
    harmony_weight: Annotated[float, Field(ge=0)] = 0.0
    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = 5
    generator_learning_rate: Rate = 1e-3
    discriminator_learning_rate: Rate = 1e-3
    beta1: Beta = 0.5
    beta2: Beta = 0.9


@register("musegan")
class Musegan(Family[MuseganConfig]):
    """MuseGAN with binary neurons."""

    title = "MuseGAN: music of several tracks as piano rolls, with binary neurons"
    paper = "Dong, Hsiao, Yang & Yang (2018), MuseGAN; Dong & Yang (2018), GANs with Binary Neurons"
    Config = MuseganConfig
    ema_networks = (GENERATOR,)
    makes = frozenset(("piano rolls",))

    @property
    def roll(self) -> RollFormat:
        """The format of the data."""
        return cast(RollFormat, self.data.output)

    def notes(self) -> tuple[str, ...]:
        """What `one_hot` means for tracks that have chords."""
        if self.config.neurons == "binary":
            return ()
        return ("neurons=one_hot: each track has one note at a time, also where the data has chords",)

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator` and `discriminator`."""
        config = self.config
        generator = MuseGenerator(
            self.roll,
            latent=config.latent,
            channels=config.generator_channels,
            private=config.private,
            one_hot=config.neurons == "one_hot",
            stochastic=config.stochastic,
        )
        return {GENERATOR: generator, DISCRIMINATOR: MuseCritic(self.roll, channels=config.discriminator_channels)}

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, repeated `discriminator_steps` times, then `generator`."""
        config, betas = self.config, (self.config.beta1, self.config.beta2)
        steps, rate = config.discriminator_steps, config.discriminator_learning_rate
        return (
            Phase(DISCRIMINATOR, (DISCRIMINATOR,), rate, betas, repeat=steps),
            Phase(GENERATOR, (GENERATOR,), config.generator_learning_rate, betas),
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The critic's loss, with the penalty; the generator's, with the rules."""
        config, real = self.config, batch.images
        with torch.set_grad_enabled(phase == GENERATOR):
            fake = self._made(network_of(networks, GENERATOR, MuseGenerator), len(real), real.device)
        critic = networks[DISCRIMINATOR]
        on_fake: Tensor = critic(fake)
        if phase == GENERATOR:
            return self._generator_loss(fake, real, on_fake)
        on_real: Tensor = critic(real)
        total = critic_loss(config.loss, on_real, on_fake)
        if config.loss == "wasserstein" and config.penalty > 0:
            total = total + config.penalty * gradient_penalty(critic, real, fake)
        if config.loss == "wasserstein":
            return Loss(total, {"distance": (on_real.mean() - on_fake.mean()).detach()})
        right = ((on_real > 0).float().mean() + (on_fake < 0).float().mean()).detach() / 2
        return Loss(total, {"d_real": torch.sigmoid(on_real.detach()).mean(), "right": right})

    def _generator_loss(self, fake: Tensor, real: Tensor, on_fake: Tensor) -> Loss:
        config = self.config
        total, logs = generator_loss(config.loss, on_fake), {"on_fake": on_fake.detach().mean()}
        for name, weight, rule in (
            ("rhythm", config.rhythm_weight, rhythm_rule),
            ("harmony", config.harmony_weight, harmony_rule),
        ):
            if weight > 0:
                broken = rule(fake, real, self.roll)
                total, logs[name] = total + weight * broken, broken.detach()
        return Loss(total, logs)

    def _made(self, generator: MuseGenerator, count: int, device: torch.device) -> Tensor:
        z = torch.randn(count, self._size, device=device)
        uniform = torch.rand(count, *generator.uniform_shape, device=device) if self.config.stochastic else None
        made: Tensor = generator(z, uniform)
        return made

    @property
    def _size(self) -> int:
        return MuseGenerator.size(len(self.roll.tracks), self.config.latent)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``generator``, all of which but the neurons may be half precision."""
        generator = network_of(networks, GENERATOR, MuseGenerator)
        plan = latent_plan(self.name, GENERATOR, generator, self.data, latent=self._size, conditional=False)
        if not self.config.stochastic:
            return plan
        (graph,) = plan.model.graphs
        drawn = TensorSpec(
            name="uniform",
            dtype="float32",
            shape=("batch", *generator.uniform_shape),
            role="noise",
            distribution="uniform",
        )
        whole = graph.model_copy(update={"inputs": (*graph.inputs, drawn)})
        model = ModelSpec.model_validate({**dict(plan.model), "graphs": (whole,)})
        return replace(plan, model=model)
