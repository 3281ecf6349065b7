"""Music that is drawn step after step: how it goes on, where it ends, and how likely it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.errors import GensdkWarning, InputError
from gensdk_runtime.generator import Generator

FEW = 48
"""Steps, three bars."""


@pytest.fixture(scope="module")
def chorales() -> Iterator[Generator]:
    with Generator.load("chorales", backend="onnxruntime", threads=1) as model:
        yield model


@pytest.mark.parametrize("steps", [1, 16, 31, FEW - 1])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_prefix_and_continuation_equal_the_whole(chorales: Generator, steps: int, batch_size: int | None) -> None:
    whole = chorales.sample(3, seed=steps, max_length=FEW)
    assert whole.lengths is not None
    assert whole.lengths.min() >= steps, "of these seeds none ends before"
    for given in (whole.array[:, :, :steps], whole.array[:, :, :steps].astype(bool)):
        again = chorales.sample(3, seed=steps, max_length=FEW, prefix=given, batch_size=batch_size)
        np.testing.assert_array_equal(again.array, whole.array)
        np.testing.assert_array_equal(again.lengths, whole.lengths)


def test_the_first_bars_stay_and_decide_what_follows(chorales: Generator) -> None:
    whole = chorales.sample(1, seed=0, max_length=2 * FEW)
    others = chorales.sample(4, seed=5, max_length=2 * FEW, prefix=whole.array[:, :, :FEW])
    np.testing.assert_array_equal(others.array[:, :, :FEW], np.repeat(whole.array[:, :, :FEW], 4, axis=0))
    assert (others.array[:, :, FEW:] != whole.array[:, :, FEW:]).any()
    assert others.settings["prefix"] == "given"
    free = chorales.sample(4, seed=5, max_length=2 * FEW)
    assert (free.array[:, :, FEW:] != others.array[:, :, FEW:]).any()
    assert (others.array.sum(axis=3) <= 1).all(), "a voice has one note at a time"


def chord(steps: int) -> np.ndarray:
    rolls = np.zeros((1, 4, steps, 48), np.float32)
    rolls[0, 2, 3, [10, 14]] = 1
    return rolls


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (chord(16), "prefix 0 is nothing that model .* can make, as several notes of a track at once are"),
        (np.zeros((1, 3, 16, 48)), r"as rolls \[n, 4, 1 to 639 steps, 48\], got \[1, 3, 16, 48\]"),
        (np.zeros((1, 4, 640, 48)), r"got \[1, 4, 640, 48\]"),
        (np.zeros((2, 4, 16, 48)), "expected one prefix, or one for each of the 3 samples, got 2"),
        (np.full((1, 4, 16, 48), np.nan), "ones, where a note sounds, and zeros"),
        (np.zeros((1, 4, 32, 48)), "expected max_length above the 32 elements of the prefix, got 32"),
        ("tune.mid", "expected prefix"),
        ([[1, 2], [3]], "expected prefix"),
    ],
)
def test_what_is_no_beginning_is_refused(chorales: Generator, prefix: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as failure:
        chorales.sample(3, seed=0, max_length=32, prefix=prefix)
    assert "\n" not in str(failure.value)


def test_a_piece_ends_by_itself_and_is_as_long_as_it_is(chorales: Generator) -> None:
    samples = chorales.sample(12, seed=1)
    assert samples.lengths is not None
    assert (samples.lengths < 640).mean() > 0.5
    for piece, roll, length in zip(samples.music, samples.array, samples.lengths.tolist(), strict=True):
        assert not roll[:, length:].any()
        assert roll[:, length - 1].any()
        assert piece.format.bars == -(-length // 16)
        assert max(note.start + note.duration for note in piece.notes) == length
    short = chorales.sample(12, seed=1, max_length=FEW)
    np.testing.assert_array_equal(short.lengths, np.minimum(samples.lengths, FEW))


def test_music_is_likelier_than_its_notes_in_another_order(chorales: Generator) -> None:
    samples = chorales.sample(3, seed=2, max_length=2 * FEW)
    rolls, lengths = samples.array, samples.lengths
    assert lengths is not None
    bits = chorales.log_likelihood(rolls, lengths=lengths)
    np.testing.assert_array_equal(chorales.log_likelihood(samples), bits)
    with pytest.warns(
        GensdkWarning, match="3 of 3 piano rolls end in zeros, which are judged as a part of them; pass"
    ):
        assert (chorales.log_likelihood(rolls) < bits).all(), "silence is likely"
    assert np.isfinite(bits).all()
    assert (bits > 0).all()
    backwards = rolls.copy()
    for roll, length in zip(backwards, lengths.tolist(), strict=True):
        roll[:, :length] = roll[:, :length][:, ::-1]
    moved = np.concatenate([rolls[:, :1], np.roll(rolls[:, 1:], 1, axis=3)], axis=1)
    assert (chorales.log_likelihood(backwards, lengths=lengths) > bits).all()
    assert (chorales.log_likelihood(moved, lengths=lengths) > 1.2 * bits).all(), "three voices a semitone higher"
    one = chorales.log_likelihood(rolls[1:2], lengths=lengths[1:2], batch_size=1)
    np.testing.assert_allclose(one, bits[1:2], rtol=1e-5)


@pytest.mark.parametrize(
    ("rolls", "lengths", "message"),
    [
        (chord(640), [4], "sample 0 is nothing that model .* can make"),
        (np.zeros((1, 4, 16, 48)), [4], r"expected piano rolls as rolls \[n, 4, 640 steps, 48\]"),
        (np.zeros((1, 4, 640, 48)), [641], "expected lengths as 1 whole numbers from 0 to 640"),
        (np.zeros((1, 4, 640, 48)), [1.5], "whole numbers"),
        (np.full((1, 4, 640, 48), 0.5), None, "ones, where a note sounds, and zeros"),
    ],
)
def test_music_that_can_not_be_judged(chorales: Generator, rolls: Any, lengths: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chorales.log_likelihood(rolls, lengths=lengths)
