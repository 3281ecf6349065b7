"""Drawn faces: their mouths follow sounds by a stated rule, and how far they are open can be measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from drawn_faces import TEST_SPEAKERS, Clips, clips, recordings
from face_drawing import Face, Pose
from mouth_rules import mouth_of
from quality_talking import correlation, mouth_region, one_still, opening_of

from support.sounds import spoken

RATE = 8000


def vowel(first: float, second: float, seconds: float = 0.4) -> np.ndarray:
    """Harmonics of 120 Hz, strongest at two formants."""
    times = np.arange(round(seconds * RATE)) / RATE
    hertz = np.arange(120, 3500, 120)
    loud = sum(np.exp(-0.5 * ((hertz - formant) / 90) ** 2) for formant in (first, second))
    waves = (loud[:, None] * np.sin(2 * np.pi * hertz[:, None] * times)).sum(axis=0)
    return (0.5 * waves / np.abs(waves).max()).astype(np.float32)


def test_open_vowels_open_the_mouth_and_silence_and_hisses_close_it() -> None:
    rest = np.zeros(RATE // 5, np.float32)
    hiss = np.diff(np.random.default_rng(0).normal(size=3201)).astype(np.float32) / 8
    parts = {"a": vowel(750, 1200), "i": vowel(290, 2200), "s": hiss}
    found = {name: mouth_of(np.concatenate([rest, part, rest]), RATE) for name, part in parts.items()}
    middle = {name: mouth.at(np.array([0.4])) for name, mouth in found.items()}
    opening = {name: float(mouth.opening[0]) for name, mouth in middle.items()}
    assert opening["a"] > 0.5
    assert opening["i"] < opening["a"] / 2
    assert opening["s"] < 0.15
    assert middle["i"].width[0] > middle["a"].width[0] + 0.3
    for mouth in found.values():
        assert mouth.opening[0] < 0.02
        assert 0 <= mouth.opening.min() <= mouth.opening.max() <= 1
        assert np.abs(np.diff(mouth.opening)).max() < 0.15  # as a jaw moves


def test_a_face_is_the_same_each_time_and_only_its_mouth_moves() -> None:
    face, pose = Face.of(7), Pose.of(7)
    closed, wide = face.draw(pose, 0.0, 0.5), face.draw(pose, 1.0, 0.5)
    np.testing.assert_array_equal(closed, Face.of(7).draw(Pose.of(7), 0.0, 0.5))
    assert (closed != Face.of(8).draw(Pose.of(8), 0.0, 0.5)).any()
    np.testing.assert_array_equal(closed[:32], wide[:32])
    assert (mouth_region(closed) != mouth_region(wide)).any()


def test_clips_go_with_their_sounds_and_their_openings_are_measured(tmp_path: Path) -> None:
    archive = spoken(tmp_path / "fsdd", takes=6)
    found = list(recordings(archive, ("ann",), 2))
    assert {speaker for speaker, _, _ in recordings(archive, None, 1)} == {"ann", "bo"} - set(TEST_SPEAKERS)
    loud = [(speaker, vowel(700, 1200), rate) for speaker, _, rate in found[:2]]
    made = clips(loud, 5)
    assert isinstance(made, Clips)
    assert len(made.images) == len(made.sounds) == len(made.opening) == len(made.stills)
    assert set(made.clip.tolist()) == {0, 1}
    measured = opening_of(made.images, made)
    assert correlation(measured, made.opening) > 0.98
    assert np.abs(measured - made.opening).mean() < 0.05
    assert correlation(np.zeros(4), np.arange(4.0)) == 0
    faces = one_still(made)
    for clip in (0, 1):
        assert len(np.unique(faces[made.clip == clip], axis=0)) == 1
