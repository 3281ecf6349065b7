"""Measures of music on rolls whose values are known, the baseline, and the rules as losses."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.pianoroll import PianorollSpec, TrackSpec
from gensdk_training.evaluation.music_models import music_measures
from gensdk_training.losses.music_rules import chroma, edges, harmony_rule, key_profile, rhythm_rule
from gensdk_training.metrics.music import (
    MEASURES,
    Bool,
    independent_notes,
    measure_music,
    tonal_centroid,
)
from support.music import phrases

FORM = PianorollSpec(
    tracks=(TrackSpec(name="a"), TrackSpec(name="b"), TrackSpec(name="drums", is_drum=True)),
    lowest_pitch=55,  # a G: pitch classes don't begin with the roll
    pitches=30,
    steps_per_beat=2,
    beats_per_bar=2,
    bars=2,
)


def roll(notes: Iterable[tuple[int, int, int, int]], count: int = 1) -> Bool:
    """`count` times the notes (track, pitch, start, duration): bool [count, 3, 8, 30]."""
    made = np.zeros((count, *FORM.shape), np.bool_)
    for track, pitch, start, duration in notes:
        made[:, track, start : start + duration, pitch - FORM.lowest_pitch] = True
    return made


def test_empty_bars_are_of_single_tracks() -> None:
    rolls = roll([(0, 60, 0, 8), (1, 60, 0, 4)])
    assert measure_music(rolls, FORM)["empty_bars"] == pytest.approx(3 / 6)


def test_pitch_classes_of_a_bar_leave_octaves_and_drums_out() -> None:
    rolls = roll([(0, 60, 0, 1), (0, 72, 1, 1), (0, 62, 2, 2), (1, 65, 4, 4), (2, 55, 0, 1), (2, 58, 2, 1)])
    assert measure_music(rolls, FORM)["pitch_classes"] == pytest.approx((2 + 1) / 2)


def test_notes_of_three_steps_are_qualified() -> None:
    rolls = roll([(0, 60, 0, 3), (0, 62, 3, 2), (1, 60, 0, 8), (2, 55, 0, 1)])
    assert measure_music(rolls, FORM)["qualified_notes"] == pytest.approx(2 / 4)


@pytest.mark.parametrize("up", range(12))
def test_a_scale_is_found_in_every_key(up: int) -> None:
    scale = [60 + up + step for step in (0, 2, 4, 5, 7, 9, 11)]
    within = roll([(0, pitch, place, 1) for place, pitch in enumerate(scale)])
    assert measure_music(within, FORM)["scale_consistency"] == 1.0
    beside = within | roll([(1, scale[0] + 1, 0, 8), (2, 56, 0, 8)])  # one note out of it, and a drum that is none
    assert measure_music(beside, FORM)["scale_consistency"] == pytest.approx(7 / 8)


def test_all_twelve_notes_fit_a_scale_by_seven_twelfths() -> None:
    rolls = roll([(place % 2, 60 + place, place // 2, 1) for place in range(12)])
    assert measure_music(rolls, FORM)["scale_consistency"] == pytest.approx(7 / 12)


@pytest.mark.parametrize(
    ("interval", "distance"),
    [(0, 0.0), (12, 0.0), (7, math.sqrt(4 - 2 * math.cos(math.pi / 6) + 0.75)), (6, math.sqrt(8)), (3, None)],
)
def test_tonal_distance_of_two_notes(interval: int, distance: float | None) -> None:
    rolls = roll([(0, 60, 0, 4), (1, 60 + interval, 0, 4), (1, 70, 6, 2), (2, 66, 0, 8)])
    found = measure_music(rolls, FORM)["tonal_distance"]
    if distance is None:  # of the paper's formula, written out
        radius = (1.0, 1.0, 0.5)
        turns = (7 * math.pi / 6, 3 * math.pi / 2, 2 * math.pi / 3)
        parts = zip(radius, turns, strict=True)
        distance = math.sqrt(sum(2 * r * r * (1 - math.cos(interval * turn)) for r, turn in parts))
    assert found == pytest.approx(distance, abs=1e-9)


def test_the_tonal_centroid_of_silence_and_of_all_notes_is_the_middle() -> None:
    np.testing.assert_allclose(tonal_centroid(np.zeros(12)), np.zeros(6))
    np.testing.assert_allclose(tonal_centroid(np.ones(12)), np.zeros(6), atol=1e-12)


def test_what_can_not_be_measured_is_left_out() -> None:
    assert measure_music(roll([]), FORM) == {"empty_bars": 1.0}
    alone = PianorollSpec.model_validate({**dict(FORM), "tracks": FORM.tracks[:1]})
    found = measure_music(roll([(0, 60, 0, 4)])[:, :1], alone)
    assert set(found) == set(MEASURES) - {"tonal_distance"}
    with pytest.raises(InputError, match=r"expected rolls \[n, tracks, steps, pitches\], \[3, 8, 30\] each"):
        measure_music(roll([])[..., :2], FORM)


def test_the_baseline_has_the_notes_of_the_data_in_no_order() -> None:
    rolls = roll([(0, 60, 0, 8), (0, 67, 0, 4), (1, 62, 4, 4)], count=4)
    made = independent_notes(rolls, 500, seed=1)
    np.testing.assert_array_equal(made, independent_notes(rolls, 500, seed=1))
    assert made.shape == (500, *FORM.shape)
    often = [[(part[:, 0].sum(axis=-1) == count).mean() for count in range(3)] for part in (rolls, made)]
    np.testing.assert_allclose(*often, atol=0.03)
    assert np.flatnonzero(made[:, 0].any(axis=(0, 1))).tolist() == [5, 12]
    assert np.flatnonzero(made[:, 1].any(axis=(0, 1))).tolist() == [7]
    assert not made[:, 2].any()
    steps = made[:, 1].sum(axis=-1)
    assert np.corrcoef(steps[:, 0], steps[:, 1])[0, 1] == pytest.approx(0, abs=0.15)


def test_measures_are_counted_that_are_nearer_than_the_baseline() -> None:
    data = phrases()
    real = data.batch(np.arange(len(data))).images > 0.5
    base = independent_notes(real, 300, seed=0)
    rows = {row.name: row for row in music_measures(real[::2], real[1::2], real, base, data.form)}
    assert set(rows) == {*MEASURES, "nearer"}
    assert rows["nearer"].value >= 3
    assert rows["nearer"].floor == 5
    none = {row.name: row for row in music_measures(base, real[1::2], real, base, data.form)}
    assert none["nearer"].value == 0, "the baseline is not nearer than itself"
    assert none["qualified_notes"].baseline == none["qualified_notes"].value
    silent = {row.name: row.value for row in music_measures(base & False, real, real, base, data.form)}
    assert set(silent) == {"empty_bars", "nearer"}


def tensor(notes: Iterable[tuple[int, int, int, int]], count: int = 2) -> torch.Tensor:
    return torch.from_numpy(roll(notes, count).astype(np.float32))


def test_edges_are_where_notes_begin_and_where_they_have_ended() -> None:
    begun, ended = edges(tensor([(0, 60, 2, 3), (1, 61, 0, 8)]))
    assert begun[0].nonzero().tolist() == [[0, 2, 5], [1, 0, 6]]
    assert ended[0].nonzero().tolist() == [[0, 5, 5]]


def test_rules_are_kept_by_the_data_and_broken_by_other_music() -> None:
    real = tensor([(0, 60, 0, 4), (0, 64, 4, 4), (1, 67, 0, 8)])
    fragments = tensor([(0, 60, step, 1) for step in range(0, 8, 2)] + [(1, 67, 0, 8)])
    clash = tensor([(0, 60, 0, 4), (0, 64, 4, 4), (1, 61, 0, 8)])
    for rule in (rhythm_rule, harmony_rule):
        assert float(rule(real, real, FORM)) == 0
    assert float(rhythm_rule(fragments, real, FORM)) > 0.1
    assert float(rhythm_rule(clash, real, FORM)) == 0
    assert float(harmony_rule(clash, real, FORM)) > 0.1
    higher = tensor([(0, 65, 0, 4), (0, 69, 4, 4), (1, 72, 0, 8)])
    assert float(harmony_rule(higher, real, FORM)) == pytest.approx(0, abs=1e-9), "another key is no other harmony"
    drums = real.clone()
    drums[:, 2, :, 3] = 1
    assert float(harmony_rule(drums, real, FORM)) == 0


def test_rules_have_gradients_and_a_key_is_the_same_in_every_key() -> None:
    made = torch.rand(2, *FORM.shape, requires_grad=True)
    total = rhythm_rule(made, tensor([]), FORM) + harmony_rule(made, tensor([(0, 60, 0, 8)]), FORM)
    (gradient,) = torch.autograd.grad(total, made)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    one, other = tensor([(0, 60, 0, 2), (1, 64, 0, 2)]), tensor([(0, 63, 0, 2), (1, 67, 0, 2)])
    torch.testing.assert_close(key_profile(one), key_profile(other))
    assert chroma(one).sum() == one.sum()
    assert key_profile(tensor([])).abs().max() == 0
