"""MusicRNN: music of several voices, one step of the grid after the other, with exact likelihoods.

Papers: Boulanger-Lewandowski, Bengio & Vincent 2012, "Modeling Temporal Dependencies in High-Dimensional
Sequences: Application to Polyphonic Music Generation and Transcription" (arXiv 1206.6392), for the recurrent
network over steps with a model of one step's notes on top; Liang, Gotham, Johnson & Shotton 2017, "Automatic
Stylistic Composition of Bach Chorales with Deep LSTM" (ISMIR), for the grid of 16ths, its tokens and the order of
voices; Hadjeres, Pachet & Nielsen 2017, "DeepBach" (arXiv 1612.01010), for the place in the bar as an input.

Idea: ``p(x) = prod_t prod_v p(x_tv | x_<t, x_t,<v)``. At each step each voice has one pitch or is silent, a
categorical distribution. An LSTM carries the past. The voices of a step are drawn one after another, from the
first track down, each told what those before it got: so chords are chords. Whether a note is held is the question
at most steps; a logit of its own adds to the pitch that sounds.

Of whole pieces (``--whole``) the end is learnt, too: one token more of the first voice. Few pieces are overfitted
soon: ``--transpose`` shows each in all keys that have room, `dropout` drops what the network is told, and the
moving average of the weights is what is exported.

A piano roll can't tell a held note from one that is struck again (see :mod:`gensdk_runtime.media.music.notes`),
and neither does this model: notes of a voice that follow each other on one pitch are one note.

Exports a step with the LSTM's states, which costs the same at the end of a piece as at its beginning, the
likelihood in one pass, and tokens as piano rolls.

It does not: have several notes at once in a track, know of keys or fermatas, write voices to a given one (it goes
on from a beginning alone), or follow changes of tempo or metre.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.pianoroll import PianorollSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, network_of
from gensdk_training.graphs.sequence_steps import (
    DECODE,
    LIKELIHOOD,
    STEP,
    decode_graph,
    likelihood_graph,
    step_graph,
    tensor,
)
from gensdk_training.graphs.voice_steps import RollLikelihood, Rolls, VoiceStep, with_end
from gensdk_training.networks.voices import Voices
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register


class MusicRnnConfig(FamilyConfig):
    """Settings of MusicRNN.

    embedding: Features of a voice's token, and of a place in time.
    hidden: Features of the LSTM's states.
    layers: Layers of the LSTM.
    head: Features that each voice's head mixes.
    dropout: Share of the features that training drops: what the LSTM gets and gives, and what the heads mix.
    """

    embedding: Annotated[int, Field(ge=1, le=4096)] = 24
    hidden: Annotated[int, Field(ge=1, le=65536)] = 192
    layers: Annotated[int, Field(ge=1, le=16)] = 1
    head: Annotated[int, Field(ge=1, le=65536)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    steps: Annotated[int, Field(ge=1)] = 1200
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    lr_schedule: Literal["constant", "linear", "cosine", "late_linear"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99


@register("musicrnn")
class MusicRnn(Family[MusicRnnConfig]):
    """An LSTM over the steps of piano rolls, with a head for each voice."""

    title: ClassVar[str] = "MusicRNN: voices of a piano roll, step after step, with exact likelihoods and an end"
    paper: ClassVar[str] = (
        "Boulanger-Lewandowski et al. 2012, Modeling Temporal Dependencies in High-Dimensional Sequences, "
        "arXiv 1206.6392"
    )
    Config: ClassVar[type[FamilyConfig]] = MusicRnnConfig
    ema_networks = ("voices",)
    makes: ClassVar[frozenset[str]] = frozenset(("piano rolls",))

    @property
    def form(self) -> PianorollSpec:
        """The format of the data."""
        return cast(PianorollSpec, self.data.output)

    @property
    def stop(self) -> int | None:
        """The token behind those of silence and all pitches, of data that end by themselves."""
        return self.form.pitches + 1 if self.data.ends else None

    @property
    def levels(self) -> int:
        """Tokens: silence, a pitch each, and the end."""
        return self.form.pitches + 1 + (self.stop is not None)

    def notes(self) -> tuple[str, ...]:
        """What becomes of chords in a track."""
        return ("each track has one note at a time, the highest, also where the data has chords",)

    def build_networks(self) -> dict[str, nn.Module]:
        """One network, called ``voices``."""
        config, form = self.config, self.form
        network = Voices(
            len(form.tracks),
            self.levels,
            form.steps_per_bar,
            form.bars,
            stop=self.stop,
            embedding=config.embedding,
            hidden=config.hidden,
            layers=config.layers,
            head=config.head,
            dropout=config.dropout,
        )
        return {"voices": network}

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood by Adam."""
        return (Phase("likelihood", ("voices",), self.config.learning_rate),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The mean negative log-likelihood in nats of a step, of all voices together and with the end;
        ``bits_per_step`` is logged."""
        network, rolls = network_of(networks, "voices", Voices), Rolls(self.form.pitches).to(batch.images.device)
        counted, most = steps_of(batch, self.form.steps)
        tokens = rolls.encode(batch.images[:, :, :most])
        place = torch.arange(most, device=tokens.device)
        last = counted.unsqueeze(1)
        if self.stop is None:
            log_p = network.log_probability(tokens, place < last, drop=True)
            total = -log_p.sum() / len(log_p)
        else:
            ends = place == last
            tokens = with_end(tokens, ends, self.stop)
            counts = place <= last
            log_p = network.log_probability(tokens, counts, drop=True)
            total = -(log_p.sum() - log_p[ends[counts], 1:].sum()) / len(log_p)
        return Loss(total, {"bits_per_step": total.detach() / math.log(2)})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """Step, likelihood, decoding. Half precision covers the step's linear maps and embeddings, not the cells,
        their states or the draw; and not the likelihood, whose LSTM is one operator that ONNX Runtime has not in
        half."""
        network = network_of(networks, "voices", Voices).eval()
        form, lstm = self.form, network.lstm
        spec = SequenceSpec(
            step_graph=STEP,
            likelihood_graph=LIKELIHOOD,
            decode_graph=DECODE,
            length=form.steps,
            levels=self.levels,
            channels=len(form.tracks),
            begin=self.levels,
            stop=self.stop,
            rest=0,
            axis=1,
        )
        states = [
            tensor(kind, lstm.num_layers, "batch", lstm.hidden_size, role="state") for kind in ("hidden", "cell")
        ]
        graphs = (step_graph(spec, states, cuts=True), likelihood_graph(spec, form), decode_graph(spec, form))
        model = ModelSpec(
            name=f"{self.data.name}-{self.name}", family=self.name, program=spec, graphs=graphs, output=form
        )
        rolls = Rolls(form.pitches)
        modules = (VoiceStep(network), RollLikelihood(network, rolls, stop=self.stop), rolls)
        embeds = ("beat", "bar", *(f"embed.{voice}" for voice in range(network.voices)))
        heads = tuple(f"heads.{voice}" for voice in range(network.voices))
        gates = tuple(f"gates.{layer}" for layer in range(lstm.num_layers))
        return ExportPlan(
            model=model,
            modules={graph.name: module.eval() for graph, module in zip(graphs, modules, strict=True)},
            half={STEP: (*embeds, *gates, *heads)},
        )


def steps_of(batch: Batch, length: int) -> tuple[Tensor, int]:
    """The steps of each roll of a batch that are data, int64 [B], and how many places hold all of them with the
    ends behind."""
    if batch.lengths is None:
        return torch.full((len(batch.images),), length, device=batch.images.device), length
    return batch.lengths, min(length, int(batch.lengths.max()) + 1)
