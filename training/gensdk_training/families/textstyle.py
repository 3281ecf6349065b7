"""TextStyle: texts written anew in another style, learnt from texts of each style without any pairs.

Paper: Dai, Liang, Qiu & Huang 2019, "Style Transformer: Unpaired Text Style Transfer without Disentangled Latent
Representation" (arXiv 1905.05621), with the multi-class discriminator.

Idea: one transformer f(x, s) reads a text x and is told a style s. There are no pairs to learn from, so three
losses stand in for them (section 3.3): of its own style a text comes back as it is, ``-log p(x | x, s)``, here
with words left out of what is read; what was written in another style s' comes back as it was, ``-log p(x |
f(x, s'), s)``; and a discriminator takes f(x, s') for s', ``-log p_D(s' | f(x, s'))``. The discriminator tells the
K styles of real texts, and a class K + 1 of what f wrote (section 3.2).

Four things are other than in the paper, since data are few and a run takes minutes:

- A first part, of `rewriting_steps`, learns from pairs made by counting: words that mark a style (Li et al. 2018)
  are exchanged for such of another style, and the text itself is to come back. This alone is "replace these words,
  where they stand, by those that fit there"; its loss stays with weight `exchange_weight` afterwards.
- f may point at words of the source instead of saying them (:class:`StyleTransformer`): rare words are copied.
- The discriminator learns real styles during the first part, and texts with exchanged words as those of class
  K + 1; what f wrote counts `written_weight` in its loss, since much of it is like real text.
- The text f(x, s') is drawn greedily without gradients, and then read once more, all places at once: the gradient
  of the discriminator and of the cycle comes back through the probabilities of its tokens (straight-through),
  where the paper feeds the decoder with mixtures of embeddings step by step.

Networks: `translator` (:class:`StyleTransformer`) and `discriminator` (:class:`StyleDiscriminator`), convolutions
over words, with the counts of words that mark styles.
Exports three graphs of the sequence program: the source read once, a step that draws a token, and the likelihood
of a text given its source. Samples take a `prompt`, the text, and a `label`, the style to write it in. Drawing is
greedy (``top_k=1``), which is what style transfer is judged by; a `top_k` of the size of the vocabulary draws
from the whole distribution.

It does not: find an equilibrium. The longer the game, the more texts have the style asked for and the less is
left of what they said; on a few thousand reviews 300 steps are a middle way, 500 end in one word again and again
that the discriminator takes for a style. It does not either: keep words that the vocabulary does not know (they
are read as unknown, and never written), move through styles by degrees, tell meaning from marking words beyond
what the data show, or use pairs where there are such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, network_of, require_labels
from gensdk_training.graphs.style_steps import style_plan
from gensdk_training.losses.policy_gradient import mean_over
from gensdk_training.networks.language_model import NEVER, Ends
from gensdk_training.networks.style_discriminator import StyleDiscriminator
from gensdk_training.networks.style_markers import StyleMarkers
from gensdk_training.networks.style_transformer import Choices, StyleTransformer, rewritten
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated
from gensdk_training.text_family import real_texts

REWRITING, DISCRIMINATOR, GAME = "rewriting", "discriminator", "game"
WIDTHS = (1, 2, 3)
"""Words that the discriminator's filters see."""
KNOWN = 0.25
"""Of what is known of a word's style, how much is in its embedding from the beginning; those have about length
1."""
CLEAR = 3.0
"""Nats from which on a word marks a style clearly."""
EXCHANGED_DROP = 1 / 3
"""Where words are exchanged so much less is left out."""


class TextStyleConfig(FamilyConfig):
    """Settings of the style transformer.

    features: Features of each place.
    layers: Layers of the reader, and of the writer.
    heads: Heads of each attention; features is a multiple of it.
    frequent: The most frequent tokens, which can be said; others can only be copied from the source.
    dropout: Share of features that training drops, in both networks.
    word_dropout: Share of words that the translator doesn't see in training, where it reads and where it writes.
    marker_threshold: Logarithm of how many times likelier a word is in texts of a style that marks it.
    marker_count: Texts that a word must stand in to mark a style.
    exchange_share: Share of the marking words that are exchanged.
    drop_share: Share of a text's words that are left out of what is read where it is to come back.
    marker_drop_share: The same of words that mark its style.
    rewriting_steps: Steps of the first part, without the discriminator.
    discriminator_embedding: Features of a token in the discriminator.
    filters: Of each width in the discriminator.
    discriminator_dropout: Share of the discriminator's inputs and outputs that is dropped.
    game_learning_rate: Step size of the translator's optimizer in the game.
    style_weight: Of the discriminator's verdict in the game.
    written_weight: In the discriminator's loss, of what was written beside real texts.
    cycle_weight: Of the loss of the text that comes back.
    self_weight: Of the loss of the text with words left out.
    exchange_weight: Of the loss of the text with marking words exchanged.
    """

    features: Annotated[int, Field(ge=2, le=4096)] = 64
    layers: Annotated[int, Field(ge=1, le=16)] = 1
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    frequent: Annotated[int, Field(ge=1, le=2**17)] = 1500
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    marker_threshold: Annotated[float, Field(ge=0)] = 0.8
    marker_count: Annotated[int, Field(ge=1)] = 4
    exchange_share: Annotated[float, Field(ge=0, le=1)] = 0.9
    drop_share: Annotated[float, Field(ge=0, lt=1)] = 0.15
    marker_drop_share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 48
    rewriting_steps: Annotated[int, Field(ge=0)] = 500
    steps: Annotated[int, Field(ge=1)] = 800
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    game_learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    discriminator_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    discriminator_embedding: Annotated[int, Field(ge=1, le=65536)] = 64
    filters: Annotated[int, Field(ge=1, le=65536)] = 64
    discriminator_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    style_weight: Annotated[float, Field(ge=0)] = 0.5
    written_weight: Annotated[float, Field(ge=0)] = 0.5
    cycle_weight: Annotated[float, Field(ge=0)] = 1.0
    self_weight: Annotated[float, Field(ge=0)] = 0.5
    exchange_weight: Annotated[float, Field(ge=0)] = 0.5
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0


@register("textstyle")
class TextStyle(Family[TextStyleConfig]):
    """A transformer that reads a text and writes it in the style asked for."""

    title: ClassVar[str] = "Style Transformer: texts in another style, from texts without pairs"
    paper: ClassVar[str] = (
        "Dai et al. 2019, Style Transformer: Unpaired Text Style Transfer without Disentangled Latent "
        "Representation, arXiv 1905.05621"
    )
    Config: ClassVar[type[FamilyConfig]] = TextStyleConfig
    ema_networks = ("translator",)
    needs_labels: ClassVar[bool] = True
    makes: ClassVar[frozenset[str]] = frozenset(("texts",))

    def check(self) -> None:
        """Refuses texts of one style or without a begin, an end and a pad, and heads that don't fit."""
        special, styles = self.data.require_text().vocabulary.special, self.data.num_classes
        if styles is None or styles < 2:
            raise InputError(
                f"{self.name} needs labels of two styles or more, data {self.data.name!r} has "
                f"{styles or 'none'}; name a column with --labels, or give scores a --text threshold="
            )
        for kind in ("begin", "end", "pad"):
            if getattr(special, kind) is None:
                raise InputError(
                    f"the vocabulary of {self.data.name!r} has no {kind} token, which {self.name} needs"
                )
        if self.config.features % self.config.heads:
            raise InputError(
                f"features {self.config.features} can't be shared by {self.config.heads} heads; choose a multiple"
            )

    @property
    def _special(self) -> tuple[int, int, int]:
        """Pad, begin, end."""
        special = self.data.require_text().vocabulary.special
        return special.pad or 0, special.begin or 0, special.end or 0

    @property
    def ends(self) -> Ends:
        """How texts begin and end."""
        pad, begin, end = self._special
        return Ends(begin=begin, stop=end, rest=pad)

    def build_networks(self) -> dict[str, nn.Module]:
        """`translator` and `discriminator`."""
        config, size, styles = self.config, self.data.require_text().vocabulary.size, self.data.num_classes or 0
        pad, begin, end = self._special
        translator = StyleTransformer(
            size,
            styles,
            self.data.width,
            features=config.features,
            layers=config.layers,
            heads=config.heads,
            frequent=config.frequent,
            never=(pad, begin),
            begin=begin,
            pad=pad,
            dropout=config.dropout,
            word_dropout=config.word_dropout,
        )
        markers = StyleMarkers(styles, size, threshold=config.marker_threshold, least=config.marker_count)
        discriminator = StyleDiscriminator(
            markers,
            embedding=config.discriminator_embedding,
            filters=config.filters,
            widths=WIDTHS,
            silent=(pad, begin, end),
            dropout=config.discriminator_dropout,
        )
        return {"translator": translator, "discriminator": discriminator}

    def look(self, networks: Mapping[str, nn.Module], spread: Callable[[int], Batch]) -> None:
        """Counts the words that mark styles, in all texts.

        Raises :class:`InputError` where a style has none: nothing could be exchanged.
        """
        translator = network_of(networks, "translator", StyleTransformer)
        markers = network_of(networks, "discriminator", StyleDiscriminator).markers
        whole, unknown = spread(self.data.count), self.data.require_text().vocabulary.special.unknown
        silent = (*self._special, *(() if unknown is None else (unknown,)))
        markers.learn(whole.images, require_labels(whole), silent)
        if bare := (markers.weights.sum(dim=1) == 0).nonzero().flatten().tolist():
            names = self.data.class_names or range(len(markers.texts))
            raise InputError(
                f"no word of {self.data.name!r} marks the style {names[bare[0]]!r}, so none can be exchanged; "
                "lower marker_threshold or marker_count, or give more texts"
            )
        ratios = markers.ratios
        translator.leaning.copy_(ratios.clamp(-CLEAR, CLEAR))
        with torch.no_grad():
            count = min(len(ratios), self.config.features)
            translator.embed.weight[:, :count] = KNOWN * ratios[:count].t()

    def phases(self) -> tuple[Phase, ...]:
        """`rewriting`, `discriminator`, `game`; :meth:`rests` says when each has its turn."""
        config, betas = self.config, (0.9, 0.98)
        return (
            Phase(REWRITING, ("translator",), config.learning_rate, betas),
            Phase(DISCRIMINATOR, ("discriminator",), config.discriminator_learning_rate),
            Phase(GAME, ("translator",), config.game_learning_rate, betas),
        )

    def rests(self, phase: str, step: int) -> bool:
        """The first part rests after its steps, the game before; the discriminator never does."""
        return phase != DISCRIMINATOR and (step < self.config.rewriting_steps) == (phase == GAME)

    def begin_step(self, networks: Mapping[str, nn.Module], step: int) -> None:
        """Tells the discriminator whom it plays against."""
        network_of(networks, "discriminator", StyleDiscriminator).playing = step >= self.config.rewriting_steps

    def notes(self) -> tuple[str, ...]:
        """What a run has no steps for."""
        config = self.config
        if config.steps > config.rewriting_steps:
            return ()
        return (
            f"steps {config.steps} end before the game, which begins at step {config.rewriting_steps}: texts with "
            "words exchanged are all that the translator learns by",
        )

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The loss of texts that come back, D's cross-entropy, or the four losses of the game."""
        translator = network_of(networks, "translator", StyleTransformer)
        discriminator = network_of(networks, "discriminator", StyleDiscriminator)
        texts, styles, classes = real_texts(batch), require_labels(batch), self.data.num_classes or 2
        others = (styles + torch.randint_like(styles, 1, classes)) % classes
        if phase == REWRITING:
            returned = self._returned(translator, discriminator.markers, texts, styles, others)
            return Loss(
                returned["exchanged"] + returned["own"], {name: value.detach() for name, value in returned.items()}
            )
        sources = self._as_source(texts)
        if phase == DISCRIMINATOR and not discriminator.playing:
            written = discriminator.markers.exchanged(sources, styles, others, self.config.exchange_share)
        else:
            written = self._written(translator, sources, others)
        if phase == DISCRIMINATOR:
            told = discriminator(texts), discriminator(written)
            return _told_apart(*told, styles, self.config.written_weight)
        returned = self._returned(translator, discriminator.markers, texts, styles, others)
        with evaluated(translator, discriminator):
            choices = translator(translator.read(sources, others), others, self.ends.before(written))
            told = discriminator(written, choices.blended(written, discriminator.embed.weight))
        back = self._as_source(written)
        first = Choices(choices.logits[:, : back.shape[1]], choices.source)
        embedded = first.blended(back, translator.embed.weight)
        again = translator(translator.read(back, styles, embedded), styles, self.ends.before(texts))
        style, cycle = functional.cross_entropy(told, others), self._surprise(again, texts)
        config = self.config
        total = config.style_weight * style + config.cycle_weight * cycle
        total = total + config.self_weight * returned["own"] + config.exchange_weight * returned["exchanged"]
        logs = {"style": style, "cycle": cycle, **returned}
        return Loss(total, {name: value.detach() for name, value in logs.items()})

    def _returned(
        self, translator: StyleTransformer, markers: StyleMarkers, texts: Tensor, styles: Tensor, others: Tensor
    ) -> dict[str, Tensor]:
        """The loss of texts that come back in their own style: of one half of the batch with marking words
        `exchanged` for those of the `others`, of its `own` other half with words left out, marking ones more
        often."""
        sources, config, pad = self._as_source(texts), self.config, self._special[0]
        half = (len(texts) + 1) // 2
        exchanged = markers.exchanged(sources[:half], styles[:half], others[:half], config.exchange_share)
        marked = markers.marked(sources, styles)
        marked[:half] &= exchanged == sources[:half]
        drop = torch.where(marked, config.marker_drop_share, config.drop_share)
        drop[:half] *= EXCHANGED_DROP
        kept = torch.rand(sources.shape, device=sources.device) >= drop
        read = without(torch.cat((exchanged, sources[half:])), kept, pad)
        choices = translator(translator.read(read, styles), styles, self.ends.before(texts))
        parts = {"exchanged": slice(0, half), "own": slice(half, None)}
        return {
            name: self._surprise(Choices(choices.logits[part], choices.source[part]), texts[part])
            for name, part in parts.items()
        }

    def _written(self, translator: StyleTransformer, sources: Tensor, others: Tensor) -> Tensor:
        """f(x, s') of `sources` in the styles `others`, drawn greedily: int64 [B, T]."""
        pad, begin, _ = self._special
        with torch.no_grad(), evaluated(translator):
            return rewritten(translator, self.ends, translator.read(sources, others), others, (pad, begin))

    def _surprise(self, choices: Choices, texts: Tensor) -> Tensor:
        """The mean negative log-likelihood in nats of the tokens of `texts` int64 [B, T] and of their ends, as far
        as they can be said or copied: a rare word that the source has lost is nobody's fault."""
        log_p = choices.log_probability(texts)
        return -mean_over(log_p, (texts != self._special[0]) & (log_p > NEVER / 2))

    def _as_source(self, texts: Tensor) -> Tensor:
        """Texts int64 [B, T], an end in each or none, as what is read: int64 [B, T - 1] without end."""
        pad, _, end = self._special
        return torch.where(self.ends.live(texts) & (texts != end), texts, pad)[:, : self.data.width - 1]

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """The source, a step with the writer's keys and values, and the likelihood of whole texts."""
        translator = network_of(networks, "translator", StyleTransformer)
        return style_plan(translator, self.data, self.ends, self.name)


def without(tokens: Tensor, kept: Tensor, pad: int) -> Tensor:
    """`tokens` int64 [B, S], those alone that are `kept` bool [B, S], with pads behind them. A text that would
    have none keeps its first."""
    kept = kept & (tokens != pad)
    kept[:, 0] |= ~kept.any(dim=1)
    moved = tokens.gather(1, torch.argsort((~kept).to(torch.uint8), dim=1, stable=True))
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return torch.where(places < kept.sum(dim=1, keepdim=True), moved, pad)


def _told_apart(real: Tensor, written: Tensor, styles: Tensor, weight: float) -> Loss:
    """D's cross-entropy from its logits [B, K + 1] of real texts and of what was written, which is class K."""
    by_network = torch.full_like(styles, real.shape[1] - 1)
    total = functional.cross_entropy(real, styles) + weight * functional.cross_entropy(written, by_network)
    logs = {
        "right_styles": (real.argmax(dim=1) == styles).float().mean(),
        "right_written": (written.argmax(dim=1) == by_network).float().mean(),
    }
    return Loss(total, logs)
