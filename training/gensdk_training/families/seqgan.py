"""SeqGAN: a language model that goes on to learn from a discriminator of whole texts, by REINFORCE.

Paper: Yu, Zhang, Wang & Yu 2017, "SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient" (arXiv
1609.05473).

Idea: tokens are discrete, so no gradient comes back from a discriminator through them. The generator is a policy
instead: the reward of the token y_t after y_<t is what the discriminator says of whole texts that go on from
there, the mean over `rollouts` that the generator itself completes (eq. 4); the last token's is D of the text.
The gradient is ``E[(Q_t - b_t) grad log p(y_t | y_<t)]`` (eq. 7), the baseline b_t the mean reward of the
batch's other texts at the same place.

Three parts follow each other: `likelihood_steps` of maximum likelihood; `discriminator_steps` in which D alone
learns to tell the generator's texts; then generator and discriminator in turn until `steps`. With ``steps`` no
more than `likelihood_steps` it is a plain LSTM language model, which is the baseline; its run can be continued
into the other parts, as parts are counted from the beginning.

What to expect: the second half sharpens the distribution, as a temperature below 1 does, and often helps no
more. `benchmarks/quality_texts.py` puts both beside each other on SeqGAN's own benchmark. The paper's settings for
that: embedding and hidden 32, batches of 64, Adam 1e-2, 120 epochs of likelihood, 16 rollouts.

Networks: `generator`, an LSTM (:class:`LanguageModel`), and `discriminator`, convolutions (:class:`\
ConvolutionalJudge`). Exports a step with the LSTM's states, which costs the same at the end of a text as at its
beginning, and the likelihood; texts have the vocabulary with them.

It does not: keep a delayed copy of the generator for rollouts, weigh D's loss by length, take labels, or use BLEU
as a reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_training.family import Batch, FamilyConfig, Loss, Phase, network_of
from gensdk_training.losses.adversarial import critic_loss
from gensdk_training.losses.policy_gradient import against_the_others, log_probability, policy_loss
from gensdk_training.networks.language_model import Ends, LanguageModel, Written, write, write_texts
from gensdk_training.networks.text_discriminators import ConvolutionalJudge
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated
from gensdk_training.text_family import TextFamily, TextFamilyConfig, real_texts

LIKELIHOOD, DISCRIMINATOR, ADVERSARIAL = "likelihood", "discriminator", "adversarial"


class SeqGanConfig(TextFamilyConfig):
    """Settings of SeqGAN.

    dropout: Share of the generator's features that maximum likelihood drops.
    likelihood_steps: Steps of maximum likelihood, the first ones.
    discriminator_steps: Steps after them in which the discriminator alone learns; all further ones are a game.
    rollouts: Texts that complete each beginning, to tell what it is worth.
    adversarial_learning_rate: Step size of the generator's optimizer in the game.
    updates: Updates of the discriminator in each step.
    discriminator_embedding: Features of a token in the discriminator.
    filters: Of each width in the discriminator.
    widths: Tokens that the discriminator's filters see.
    discriminator_dropout: Share of the features before the discriminator's last layer that is dropped.
    """

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    likelihood_steps: Annotated[int, Field(ge=0)] = 2000
    discriminator_steps: Annotated[int, Field(ge=0)] = 200
    steps: Annotated[int, Field(ge=1)] = 2300
    rollouts: Annotated[int, Field(ge=1, le=1024)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    adversarial_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    discriminator_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    updates: Annotated[int, Field(ge=1, le=1000)] = 3
    discriminator_embedding: Annotated[int, Field(ge=1, le=65536)] = 32
    filters: Annotated[int, Field(ge=1, le=65536)] = 32
    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=64)] = (
        1,
        2,
        3,
        4,
        5,
    )
    discriminator_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25
    grad_clip: Annotated[float, Field(ge=0)] = 5.0


@register("seqgan")
class SeqGan(TextFamily[SeqGanConfig]):
    """Maximum likelihood, then REINFORCE with rollouts."""

    title: ClassVar[str] = "SeqGAN: an LSTM language model, then REINFORCE with rollouts against a discriminator"
    paper: ClassVar[str] = (
        "Yu et al. 2017, SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient, arXiv 1609.05473"
    )
    Config: ClassVar[type[FamilyConfig]] = SeqGanConfig

    def build_networks(self) -> dict[str, nn.Module]:
        """`generator` and `discriminator`."""
        config = self.config
        judge = ConvolutionalJudge(
            self.data.require_text().vocabulary.size,
            config.discriminator_embedding,
            config.widths,
            config.filters,
            config.discriminator_dropout,
        )
        return {"generator": self.build_generator(config.dropout), "discriminator": judge}

    def phases(self) -> tuple[Phase, ...]:
        """`likelihood`, `discriminator`, `adversarial`; :meth:`rests` says when each has its turn."""
        config = self.config
        return (
            Phase(LIKELIHOOD, ("generator",), config.learning_rate),
            Phase(DISCRIMINATOR, ("discriminator",), config.discriminator_learning_rate, repeat=config.updates),
            Phase(ADVERSARIAL, ("generator",), config.adversarial_learning_rate),
        )

    def rests(self, phase: str, step: int) -> bool:
        """Likelihood rests after its steps, the discriminator before, the game until both are through."""
        learnt = step >= self.config.likelihood_steps
        if phase == LIKELIHOOD:
            return learnt
        if phase == DISCRIMINATOR:
            return not learnt
        return step < self.config.likelihood_steps + self.config.discriminator_steps

    def notes(self) -> tuple[str, ...]:
        """What a run has no steps for."""
        config = self.config
        game = config.likelihood_steps + config.discriminator_steps
        if config.steps > game:
            return ()
        return (
            f"steps {config.steps} end before the game, which begins at step {game}: maximum likelihood is all "
            "that the generator learns by",
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The negative log-likelihood, D's cross-entropy, or the policy's loss."""
        if phase == LIKELIHOOD:
            return self.likelihood_loss(networks, batch)
        generator = network_of(networks, "generator", LanguageModel)
        real, judge = real_texts(batch), networks["discriminator"]
        written = write_texts(generator, self.ends, *real.shape)
        if phase == DISCRIMINATOR:
            on_real, on_fake = judge(real), judge(written.tokens)
            logs = {"d_real": on_real.detach().sigmoid().mean(), "d_fake": on_fake.detach().sigmoid().mean()}
            return Loss(critic_loss("non_saturating", on_real, on_fake), logs)
        with evaluated(judge):
            worth = rollout_rewards(generator, judge, self.ends, written, self.config.rollouts)
        counts = self.ends.live(written.tokens)
        states = generator.states(self.ends.before(written.tokens))[counts]
        log_p = log_probability(generator.head(states), written.tokens[counts])
        total = policy_loss(log_p, against_the_others(worth, counts)[counts])
        return Loss(total, {"reward": worth[:, -1].mean()})


@torch.no_grad()
def rollout_rewards(
    generator: LanguageModel, judge: nn.Module, ends: Ends, written: Written, rollouts: int
) -> Tensor:
    """Q [B, T] of each token of the texts `written` (eq. 4): the mean probability of "real" that `judge` gives to
    `rollouts` texts that begin alike up to it; of a text's end, and behind it, to the text itself."""
    tokens = written.tokens
    length = tokens.shape[1]
    worth = torch.sigmoid(judge(tokens)).unsqueeze(1).repeat(1, length)
    ended = ~ends.live(tokens) | (tokens == (-1 if ends.stop is None else ends.stop))
    for place, (hidden, cell) in enumerate(written.states[: length - 1]):
        open_ = (~ended[:, place]).nonzero().squeeze(1)
        if not len(open_):
            break
        rows = open_.repeat(rollouts)
        states = (hidden[:, rows], cell[:, rows])
        rest = write(generator, ends, tokens[rows, place], length - place - 1, states, torch.zeros_like(rows) > 0)
        whole = torch.cat((tokens[rows, : place + 1], rest.tokens), dim=1)
        worth[open_, place] = torch.sigmoid(judge(whole)).reshape(rollouts, -1).mean(dim=0)
    return worth
