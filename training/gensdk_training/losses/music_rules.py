"""Rules of rhythm and harmony as losses: what a batch has in the mean, against what real music has.

Each is a squared difference of two means, so that it asks nothing of a single phrase; all can be differentiated
through binary neurons.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gensdk_runtime.spec.pianoroll import OCTAVE, RollFormat


def rhythm_rule(made: Tensor, real: Tensor, form: RollFormat) -> Tensor:
    """How often notes begin at each step of a bar, in each track, and how many of them last a single step.

    ``sum_t |E onsets(t) - E onsets_real(t)|^2`` over tracks, steps of the bar, and the short notes of each; rolls
    are [B, T, steps, pitches].
    """
    return (_rhythm(made, form) - _rhythm(real, form).detach()).square().sum()


def _rhythm(rolls: Tensor, form: RollFormat) -> Tensor:
    begun, _ = edges(rolls)
    after = functional.pad(rolls, (0, 0, 0, 1))[:, :, 1:]
    short = (begun * (1 - after)).sum(3).mean((0, 2))
    profile = begun.sum(3).reshape(len(rolls), -1, form.bars, form.steps_per_bar).mean((0, 2))
    return torch.cat((profile, short[:, None]), dim=1)


def harmony_rule(made: Tensor, real: Tensor, form: RollFormat) -> Tensor:
    """How often two tracks sound each interval together, of twelve: ``sum |E p(interval) - E p_real(interval)|^2``
    over pairs of tracks. Drums have no part in it; a single track has no intervals, and 0."""
    melodic = [place for place, track in enumerate(form.tracks) if not track.is_drum]
    if len(melodic) < 2:
        return made.sum() * 0.0
    return (_intervals(made[:, melodic], form) - _intervals(real[:, melodic], form).detach()).square().sum()


def _intervals(rolls: Tensor, form: RollFormat) -> Tensor:
    """[pairs, 12]."""
    octaves = -(-form.pitches // OCTAVE)
    whole = functional.pad(rolls, (0, octaves * OCTAVE - form.pitches))
    chroma = whole.reshape(*rolls.shape[:3], octaves, OCTAVE).sum(3)
    turned = torch.stack([chroma.roll(-up, dims=3) for up in range(OCTAVE)], dim=3)  # [B, T, S, interval, 12]
    both = torch.einsum("btsc,busic->tui", chroma, turned) / (len(rolls) * form.steps)
    first, second = torch.triu_indices(rolls.shape[1], rolls.shape[1], 1, device=rolls.device)
    return both[first, second]


def edges(rolls: Tensor) -> tuple[Tensor, Tensor]:
    """Where notes begin, and where the step after a note is: [B, T, steps, pitches] each, from rolls of that
    shape."""
    change = functional.pad(rolls, (0, 0, 1, 0))[:, :, 1:] - functional.pad(rolls, (0, 0, 1, 0))[:, :, :-1]
    return functional.relu(change), functional.relu(-change)
