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
    """How often two tracks sound each of twelve intervals together, and how often a phrase has two pitch classes
    at each interval: ``sum |E p(interval) - E p_real(interval)|^2`` over pairs of tracks, and for the phrase.

    The second part is what a key is, whichever it is. Drums have no part in it; without other tracks it is 0.
    """
    melodic = [place for place, track in enumerate(form.tracks) if not track.is_drum]
    if not melodic:
        return made.sum() * 0.0
    return (_intervals(made[:, melodic], form) - _intervals(real[:, melodic], form).detach()).square().sum()


def _intervals(rolls: Tensor, form: RollFormat) -> Tensor:
    """[pairs + 1, 12]."""
    sounding = chroma(rolls)
    turned = torch.stack([sounding.roll(-up, dims=3) for up in range(OCTAVE)], dim=3)  # [B, T, S, interval, 12]
    both = torch.einsum("btsc,busic->tui", sounding, turned) / (len(rolls) * form.steps)
    first, second = torch.triu_indices(rolls.shape[1], rolls.shape[1], 1, device=rolls.device)
    return torch.cat((both[first, second], key_profile(rolls).mean(0, keepdim=True)))


def key_profile(rolls: Tensor) -> Tensor:
    """How often two notes of a phrase lie at each of twelve intervals, whatever their order: [B, 12], from rolls
    [B, T, steps, pitches]. It is the same in every key."""
    share = chroma(rolls).sum((1, 2))
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1.0)
    return torch.stack([(share * share.roll(-up, dims=1)).sum(1) for up in range(OCTAVE)], dim=1)


def chroma(rolls: Tensor) -> Tensor:
    """Rolls [B, T, steps, pitches] without their octaves, from the first pitch on: [B, T, steps, 12]."""
    octaves = -(-rolls.shape[3] // OCTAVE)
    whole = functional.pad(rolls, (0, octaves * OCTAVE - rolls.shape[3]))
    return whole.reshape(*rolls.shape[:3], octaves, OCTAVE).sum(3)


def edges(rolls: Tensor) -> tuple[Tensor, Tensor]:
    """Where notes begin, and where the step after a note is: [B, T, steps, pitches] each, from rolls of that
    shape."""
    change = functional.pad(rolls, (0, 0, 1, 0))[:, :, 1:] - functional.pad(rolls, (0, 0, 1, 0))[:, :, :-1]
    return functional.relu(change), functional.relu(-change)
