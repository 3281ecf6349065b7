"""ScratchGAN: a GAN of texts without any maximum likelihood before it.

Paper: de Masson d'Autume, Rosca, Rae & Mohamed 2019, "Training Language GANs from Scratch" (arXiv 1905.09922).

Idea: three things make REINFORCE work from the first step on. The discriminator is recurrent and judges each token
after those before it, so each has a reward of its own, ``r_t = 2 D(y_t | y_<t) - 1``; the return of a token
is ``R_t = sum_{s >= t} gamma^(s - t) r_s``; batches are large, and a baseline is taken off, so that the
gradient ``E[(R_t - b_t) grad log p(y_t | y_<t)]`` is less noisy. The discriminator is held back by dropout,
layer norm and weight decay, and is told the place of a token.

Here the baseline b_t is a value: a linear map of the generator's state, learnt by regression onto the returns,
where the paper has one moving average for all tokens; and embeddings are learnt from the data alone.

Networks: `generator`, an LSTM (:class:`LanguageModel`); `discriminator`, :class:`RecurrentJudge`; `baseline`.
Exports a step with the LSTM's states and the likelihood, as `seqgan` does.

It does not: take pretrained embeddings, labels, or batches as large as the paper's 512 by default. A GAN of texts
has no reason to give every text a chance: its likelihood of test texts is far worse than that of maximum
likelihood, whatever its samples are like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from gensdk_training.family import Batch, FamilyConfig, Loss, Phase, network_of, require_lengths
from gensdk_training.losses.policy_gradient import log_probability, mean_over, policy_loss, returns
from gensdk_training.networks.language_model import LanguageModel, write_texts
from gensdk_training.networks.text_discriminators import RecurrentJudge
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated
from gensdk_training.text_family import TextFamily, TextFamilyConfig, real_texts


class ScratchGanConfig(TextFamilyConfig):
    """Settings of ScratchGAN.

    discount: gamma, how much of a reward the token before it gets.
    value_weight: Of the baseline's squared error in the generator's loss; no gradient of it reaches the generator.
    updates: Updates of the discriminator in each step.
    discriminator_embedding: Features of a token in the discriminator.
    discriminator_hidden: Features of the discriminator's states.
    discriminator_dropout: Share of the discriminator's inputs and outputs that is dropped.
    discriminator_decay: Decoupled weight decay of the discriminator.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    steps: Annotated[int, Field(ge=1)] = 2000
    discount: Annotated[float, Field(ge=0, le=1)] = 0.23
    value_weight: Annotated[float, Field(ge=0)] = 1.0
    updates: Annotated[int, Field(ge=1, le=1000)] = 1
    generator_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    discriminator_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    discriminator_embedding: Annotated[int, Field(ge=1, le=65536)] = 64
    discriminator_hidden: Annotated[int, Field(ge=1, le=65536)] = 128
    discriminator_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    discriminator_decay: Annotated[float, Field(ge=0)] = 1e-3
    grad_clip: Annotated[float, Field(ge=0)] = 5.0


@register("scratchgan")
class ScratchGan(TextFamily[ScratchGanConfig]):
    """Dense rewards from a recurrent discriminator, from the first step on."""

    title: ClassVar[str] = "ScratchGAN: a GAN of texts from scratch, with a reward for each token"
    paper: ClassVar[str] = "de Masson d'Autume et al. 2019, Training Language GANs from Scratch, arXiv 1905.09922"
    Config: ClassVar[type[FamilyConfig]] = ScratchGanConfig

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator`, `discriminator` and `baseline`."""
        config = self.config
        judge = RecurrentJudge(
            self.data.require_text().vocabulary.size,
            config.discriminator_embedding,
            config.discriminator_hidden,
            config.discriminator_dropout,
        )
        baseline = nn.Linear(config.hidden, 1)
        return {"generator": self.build_generator(0.0), "discriminator": judge, "baseline": baseline}

    def phases(self) -> tuple[Phase, ...]:
        """`discriminator`, then `generator`, whose baseline learns with it."""
        config, betas = self.config, (self.config.beta1, 0.999)
        return (
            Phase(
                "discriminator",
                ("discriminator",),
                config.discriminator_learning_rate,
                betas,
                weight_decay=config.discriminator_decay,
                repeat=config.updates,
            ),
            Phase("generator", ("generator", "baseline"), config.generator_learning_rate, betas),
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """D's cross-entropy over the tokens of real and drawn texts, or the policy's loss and the baseline's."""
        generator = network_of(networks, "generator", LanguageModel)
        real, judge = real_texts(batch), networks["discriminator"]
        fake = write_texts(generator, self.ends, *real.shape).tokens
        counts = self.ends.live(fake)
        if phase == "discriminator":
            known = torch.arange(real.shape[1], device=real.device) < (require_lengths(batch) - 1).unsqueeze(1)
            on_real, on_fake = judge(real), judge(fake)
            total = mean_over(functional.softplus(-on_real), known)
            total = total + mean_over(functional.softplus(on_fake), counts)
            logs = {
                "d_real": mean_over(on_real.detach().sigmoid(), known),
                "d_fake": mean_over(on_fake.detach().sigmoid(), counts),
            }
            return Loss(total, logs)
        with torch.no_grad(), evaluated(judge):
            rewards = 2 * torch.sigmoid(judge(fake)) - 1
        worth = returns(rewards, counts, self.config.discount)
        states = generator.states(self.ends.before(fake))[counts]
        better = worth[counts] - networks["baseline"](states.detach()).squeeze(-1)
        total = policy_loss(log_probability(generator.head(states), fake[counts]), better)
        error = better.square().mean()
        return Loss(total + self.config.value_weight * error, {"reward": mean_over(rewards, counts)})
