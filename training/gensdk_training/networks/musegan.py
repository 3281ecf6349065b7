"""The networks of MuseGAN: bars from chord, style, melody and groove, and a critic that hears onsets and
chroma."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.spec.pianoroll import OCTAVE, RollFormat
from gensdk_training.losses.music_rules import edges
from gensdk_training.networks.binary_neurons import BinaryNeurons, OneHotNeurons

SLOPE = 0.2
"""Of the critic's leaky rectifiers."""


class TemporalNetwork(nn.Module):
    """One vector for a whole phrase to one for each of its bars: [B, Z] to [B, bars, Z]."""

    def __init__(self, latent: int, bars: int, hidden: int) -> None:
        super().__init__()
        self.bars = bars
        self.body = nn.Sequential(
            nn.Linear(latent, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, bars * latent)
        )

    def forward(self, z: Tensor) -> Tensor:
        """As the class says."""
        made: Tensor = self.body(z)
        return made.reshape(z.shape[0], self.bars, -1)


class BarGenerator(nn.Module):
    """One bar of one track: [N, inputs] to logits [N, steps of a bar, pitches + 1], the last one of silence.

    Beats come first, then octaves, then the steps of a beat, and at last the twelve pitches of each octave.
    """

    def __init__(self, form: RollFormat, inputs: int, channels: int) -> None:
        super().__init__()
        self.pitches = form.pitches
        octaves = -(-form.pitches // OCTAVE)
        first, second, third = 8 * channels, 4 * channels, 2 * channels
        self.start = nn.Sequential(nn.Linear(inputs, first), nn.BatchNorm1d(first), nn.ReLU())
        self.body = nn.Sequential(
            Unfold(first, second, (form.beats_per_bar, 1)),
            Unfold(second, third, (1, octaves)),
            Unfold(third, channels, (form.steps_per_beat, 1)),
        )
        self.last = nn.Linear(channels, OCTAVE + 1)

    def forward(self, z: Tensor) -> Tensor:
        """As the class says."""
        made: Tensor = self.last(self.body(self.start(z)[:, None, None]))  # [N, steps, octaves, 12 + 1]
        notes, silence = made[..., :OCTAVE].flatten(2), made[..., OCTAVE].mean(dim=-1, keepdim=True)
        return torch.cat((notes[..., : self.pitches], silence), dim=-1)


class Unfold(nn.Module):
    """A transposed convolution whose stride is its kernel, with batch norm and ReLU: [N, H, W, C] to [N, a H, b
    W, D].

    As one matrix product, which is several times faster on a processor. The norm is of each value of a kernel, so
    that it lies right behind the product, and export folds it in.
    """

    def __init__(self, inputs: int, outputs: int, times: tuple[int, int]) -> None:
        super().__init__()
        self.times, self.outputs = times, outputs
        self.product = nn.Linear(inputs, times[0] * times[1] * outputs, bias=False)
        self.norm = nn.BatchNorm1d(times[0] * times[1] * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        height, width = x.shape[1:3]
        made = functional.relu(self.norm(self.product(x.reshape(-1, x.shape[3]))))
        apart = made.reshape(-1, height, width, *self.times, self.outputs).permute(0, 1, 3, 2, 4, 5)
        return apart.reshape(-1, height * self.times[0], width * self.times[1], self.outputs)


class MuseGenerator(nn.Module):
    """z [B, (2 + 2 T) Z] to rolls [B, T, steps, pitches] of ones and zeros; see :meth:`parts` for what z is made
    of.

    `private`: a bar generator for each track; otherwise one for all, which is told the track. `one_hot`: a note
    at a time in each track. `stochastic`: neurons draw, and `uniform` [B, T, steps, pitches + 1] is what they
    draw from.
    """

    def __init__(
        self, form: RollFormat, *, latent: int, channels: int, private: bool, one_hot: bool, stochastic: bool
    ) -> None:
        super().__init__()
        tracks = len(form.tracks)
        self.form, self.latent, self.private = form, latent, private
        self.one_hot, self.stochastic = one_hot, stochastic
        self.chord = TemporalNetwork(latent, form.bars, 2 * latent)
        self.melody = nn.ModuleList(TemporalNetwork(latent, form.bars, 2 * latent) for _ in form.tracks)
        inputs = 4 * latent + (0 if private else tracks)
        self.bar = nn.ModuleList(BarGenerator(form, inputs, channels) for _ in range(tracks if private else 1))
        self.neurons = OneHotNeurons() if one_hot else BinaryNeurons()

    @staticmethod
    def size(tracks: int, latent: int) -> int:
        """Values of z."""
        return (2 + 2 * tracks) * latent

    @property
    def uniform_shape(self) -> tuple[int, int, int]:
        """Of what one sample's neurons draw from."""
        form = self.form
        return (len(form.tracks), form.steps, form.pitches + int(self.one_hot))

    def parts(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z as chord [B, Z] and style [B, Z] of all tracks, melody and groove [B, T, Z] of each.

        Chord and melody change from bar to bar, style and groove stay (Dong et al. 2018, section "MuseGAN").
        """
        tracks, size = len(self.form.tracks), self.latent
        whole = z.reshape(z.shape[0], 2 + 2 * tracks, size)
        return whole[:, 0], whole[:, 1], whole[:, 2 : 2 + tracks], whole[:, 2 + tracks :]

    def logits(self, z: Tensor) -> Tensor:
        """[B, T, steps, pitches + 1], before the neurons."""
        chord, style, melody, groove = self.parts(z)
        bars = self.form.bars
        common = torch.cat((self.chord(chord), style[:, None].expand(-1, bars, -1)), dim=-1)
        tracks = []
        for number, temporal in enumerate(self.melody):
            own = (temporal(melody[:, number]), groove[:, number, None].expand(-1, bars, -1))
            told = torch.cat((common, *own), dim=-1).reshape(z.shape[0] * bars, -1)
            if not self.private:
                which = torch.zeros(len(self.melody), device=z.device, dtype=z.dtype)
                which[number] = 1
                told = torch.cat((told, which.expand(told.shape[0], -1)), dim=-1)
            made: Tensor = self.bar[number if self.private else 0](told)
            tracks.append(made.reshape(z.shape[0], self.form.steps, -1))
        return torch.stack(tracks, dim=1)

    def forward(self, z: Tensor, uniform: Tensor | None = None) -> Tensor:
        """As the class says."""
        logits = self.logits(z)
        made: Tensor = self.neurons(logits if self.one_hot else logits[..., :-1], uniform)
        return made


class MuseCritic(nn.Module):
    """Rolls [B, T, steps, pitches] to [B].

    Three streams of each beat, as Dong & Yang 2018 (section 3.4) have them: the roll itself, in octaves first
    and in beats first; where notes begin and end; and chroma, pitches without their octave. They are joined beat
    by beat, then bar by bar. All layers are matrix products; no norms, since a gradient penalty is for each sample
    alone.
    """

    def __init__(self, form: RollFormat, *, channels: int) -> None:
        super().__init__()
        tracks, beat = len(form.tracks), form.steps_per_beat
        self.form = form
        self.octaves = -(-form.pitches // OCTAVE)
        self.octave_first = _Product(tracks * OCTAVE, channels)
        self.octave_then = _Product(beat * channels, channels)
        self.beat_first = _Product(tracks * beat, channels)
        self.beat_then = _Product(OCTAVE * channels, channels)
        self.edges = _Product(2 * tracks * beat, channels)
        self.chroma = _Product(tracks * OCTAVE, 2 * channels)
        self.beat = _Product(2 * channels * self.octaves + 3 * channels, 4 * channels)
        self.bar = _Product(4 * channels * form.beats_per_bar, 4 * channels)
        self.phrase = _Product(4 * channels * form.bars, 4 * channels)
        self.head = nn.Linear(4 * channels, 1)

    def forward(self, rolls: Tensor) -> Tensor:
        """As the class says."""
        form, count = self.form, rolls.shape[0]
        beats, beat = form.bars * form.beats_per_bar, form.steps_per_beat
        begun, ended = edges(rolls)
        ends = torch.cat((begun.sum(3), ended.sum(3)), dim=1).reshape(count, -1, beats, beat)
        whole = functional.pad(rolls, (0, self.octaves * OCTAVE - form.pitches))
        whole = whole.reshape(count, -1, beats, beat, self.octaves, OCTAVE)
        by_octave = self.octave_first(whole.permute(0, 2, 4, 3, 1, 5).flatten(4))  # [B, beats, octaves, beat, C]
        by_beat = self.beat_first(whole.permute(0, 2, 4, 5, 1, 3).flatten(4))  # [B, beats, octaves, 12, C]
        streams = (
            self.octave_then(by_octave.flatten(3)).flatten(2),
            self.beat_then(by_beat.flatten(3)).flatten(2),
            self.edges(ends.transpose(1, 2).flatten(2)),
            self.chroma(whole.sum(4).mean(3).transpose(1, 2).flatten(2)),
        )
        each_beat: Tensor = self.beat(torch.cat(streams, dim=-1))
        each_bar: Tensor = self.bar(each_beat.reshape(count, form.bars, -1))
        value: Tensor = self.head(self.phrase(each_bar.flatten(1)))
        return value[:, 0]


class _Product(nn.Sequential):
    """A linear layer of the last axis, and a leaky rectifier."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, outputs), nn.LeakyReLU(SLOPE))
