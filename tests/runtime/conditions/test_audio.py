"""Sounds that samples are made from: what is taken, how it is brought into form, what is refused and told."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.conditions.audio import AudioCondition
from gensdk_runtime.conditions.base import examples_of, required_examples
from gensdk_runtime.errors import GensdkWarning, InputError, ManifestError
from gensdk_runtime.media.audio_resampling import resample
from gensdk_runtime.media.sounds import Sound
from gensdk_runtime.spec.audio import AudioConditionSpec
from gensdk_runtime.spec.kinds import CONDITIONS
from gensdk_runtime.spec.model import ModelSpec
from support.heard import RATE, SAMPLES, Heard
from support.models import feedforward_model, generator
from support.sounds import tone, wav

MODEL = Heard().model()
CONDITION = AudioCondition(AudioConditionSpec(samples=SAMPLES, sample_rate=RATE), MODEL)
SHORT = np.linspace(0.5, -0.5, 10, dtype=np.float32)
LONG = tone(0.1, RATE, 90.0, 0.5)[:, 0]


def padded(*sounds: Any) -> Any:
    rows = np.zeros((len(sounds), SAMPLES), np.float32)
    for row, sound in zip(rows, sounds, strict=True):
        row[: len(sound)] = sound[:SAMPLES]
    return rows


@pytest.mark.parametrize(
    "given",
    [
        SHORT,
        SHORT.astype(np.float64),
        SHORT.tolist(),
        (SHORT, RATE),
        (SHORT, np.int64(RATE)),
        SHORT[None],
        SHORT[None, :, None],
        [SHORT],
        [SHORT[:, None]],
        [(SHORT, RATE)],
        ([SHORT], RATE),
        Sound(SHORT[:, None], RATE),
    ],
)
def test_a_sound_has_many_forms(given: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for count in (1, None):
            found = CONDITION.check(given, count)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, padded(SHORT))
            np.testing.assert_array_equal(CONDITION.check(found, 1), found)


def test_sounds_of_several_lengths_are_one_for_each_sample() -> None:
    whole = np.ones(SAMPLES, np.float32) / 2
    found = CONDITION.check([SHORT, whole, SHORT[:9]], 3)
    np.testing.assert_array_equal(found, padded(SHORT, whole, SHORT[:9]))
    np.testing.assert_array_equal(CONDITION.check(found, 3), found)
    with pytest.raises(InputError, match="expected one sound for each of the 2 samples, got 3"):
        CONDITION.check(found, 2)


def test_one_sound_is_for_all_samples_and_takes_the_memory_of_one() -> None:
    np.testing.assert_array_equal(CONDITION.check(SHORT, 3), padded(SHORT, SHORT, SHORT))
    assert CONDITION.check(SHORT, 10_000_000).strides[0] == 0


def test_whole_numbers_of_16_bits_are_scaled() -> None:
    bits = np.array([-32768, 0, 16384] * 3, np.int16)
    np.testing.assert_array_equal(CONDITION.check(bits, 1), padded(bits / 32768))


def test_what_is_done_to_a_sound_is_told(tmp_path: Path) -> None:
    with pytest.warns(GensdkWarning, match=r"^the sound: only the first 0\.024 s are listened to$"):
        np.testing.assert_array_equal(CONDITION.check(LONG, 1), padded(LONG))
    stereo = np.stack([SHORT, SHORT * 0.5], axis=1)
    with pytest.warns(GensdkWarning, match="1 of 1 sounds: 2 channels to 1, their mean"):
        np.testing.assert_allclose(CONDITION.check(stereo[None], 1), padded(SHORT * 0.75), rtol=1e-6)
    fast = tone(0.02, 4 * RATE, 90.0, 0.5)
    with pytest.warns(GensdkWarning, match="4000 Hz to 1000 Hz, resampled"):
        found = CONDITION.check((fast[:, 0], 4 * RATE), 1)
    np.testing.assert_allclose(found, padded(resample(fast, 4 * RATE, RATE)[:, 0]), atol=1e-6)
    with pytest.warns(GensdkWarning, match="samples beyond full scale, clipped"):
        assert np.abs(CONDITION.check(SHORT * 4, 1)).max() == 1
    path = tmp_path / "sound.wav"
    path.write_bytes(wav(fast, 4 * RATE))
    for given in (path, str(path), [path]):
        with pytest.warns(GensdkWarning, match="4000 Hz to 1000 Hz, resampled"):
            np.testing.assert_allclose(CONDITION.check(given, 1), found, atol=1e-4)


def test_the_end_that_is_cut_does_not_matter_to_resampling() -> None:
    long = tone(3.0, 4 * RATE, 90.0, 0.5)
    with pytest.warns(GensdkWarning):
        found = CONDITION.check((long[:, 0], 4 * RATE), 1)
    np.testing.assert_allclose(found[0], resample(long, 4 * RATE, RATE)[:SAMPLES, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "is made from a sound: pass audio"),
        ([], "at least one sound, got none"),
        (np.zeros(0, np.float32), "is empty"),
        ([SHORT, SHORT[:0]], "sound 1 is empty"),
        (np.zeros(9, np.float32), "is silent: nothing in its first 0.024 s is over -60 dB"),
        ([SHORT, SHORT * 1e-4], "sound 1 is silent"),
        (np.r_[SHORT, np.float32("nan")], "has NaN or infinite samples"),
        (SHORT * 1000, r"reaches 500, and floats of a sound lie in \[-1, 1\]"),
        (np.arange(10), "as int16, or as floats in .* got int64"),
        (np.ones(10, np.uint8), "got uint8"),
        (np.ones((3, 2, 9, 1), np.float32), r"as \[samples\] or \[samples, channels\], got \[3, 2, 9, 1\]"),
        (np.ones((100, 2), np.float32), r"of one sound with several channels pass \[1, samples, channels\]"),
        (np.ones((1, 9, 99), np.float32), r"or \[samples, channels\], got \[9, 99\]"),
        (0.5, r"\[samples\]"),
        (b"RIFF", "the path of a file, got bytes"),
        ({"a": 1}, "the path of a file, got dict"),
        ((SHORT, 10), "the rate of a sound in Hz from 1,000 to 768,000, got 10"),
        ((SHORT, 8000.5), "rate of a sound as whole Hz, got 8000.5"),
        ("no-such.wav", "no file no-such.wav"),
        ("a\0b", "as a str or a Path"),
        ([{"sha256": "00", "samples": 3}], "the SHA-256 alone; pass audio too"),
        ([["a"], ["b"]], "as an array of numbers"),
    ],
)
def test_what_is_no_sound_is_refused_in_a_line(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as failure:
        CONDITION.check(given, None)
    assert str(failure.value).isprintable()


def test_examples_are_the_same_everywhere_and_from_every_place_on() -> None:
    first = CONDITION.examples(6)
    assert first.dtype == np.float32
    assert first.shape == (6, SAMPLES)
    np.testing.assert_array_equal(CONDITION.examples(3, 2), first[2:5])
    assert len({row.tobytes() for row in first}) == 6
    assert len({int(np.flatnonzero(row)[-1]) for row in first}) > 2
    np.testing.assert_array_equal(CONDITION.check(first, 6), first)
    assert examples_of(MODEL, 2).keys() == required_examples(MODEL, 2).keys() == {"audio"}


def test_results_tell_a_digest_and_settings_need_the_sound_again() -> None:
    with Heard().generator() as model:
        samples = model.sample(seed=3, audio=[SHORT, -SHORT, SHORT])
        told = samples.settings["audios"]
        assert told[0] == told[2] != told[1]
        expected = hashlib.sha256(padded(SHORT)[0].astype("<f4").tobytes()).hexdigest()
        assert told[0] == {"sha256": expected, "samples": len(SHORT)}
        np.testing.assert_array_equal(samples.conditions["audio"], padded(SHORT, -SHORT, SHORT))
        settings = json.loads(json.dumps(dict(samples[1:].settings)))
        assert settings["audios"] == told[1:]
        with pytest.raises(InputError, match="pass audio too"):
            model.sample(settings=settings)
        again = model.sample(settings=settings, audio=[-SHORT, SHORT])
        np.testing.assert_array_equal(again.data, samples.data[1:])
        assert again.settings["audios"] == settings["audios"]


def test_other_models_say_that_they_take_none() -> None:
    with generator(feedforward_model()) as images, pytest.raises(InputError, match="leave audio out"):
        images.sample(1, audio=SHORT)
    with Heard().generator() as model, pytest.raises(InputError, match="pass audio, one for all samples"):
        model.sample(2)


@pytest.mark.parametrize("changes", [{"samples": 0}, {"sample_rate": 10}, {"more": 1}])
def test_a_spec_is_strict(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        AudioConditionSpec.from_dict({**CONDITION.spec.model_dump(), **changes}, what="audio", error=ManifestError)


def test_a_graph_must_listen() -> None:
    assert "audio" in CONDITIONS.names
    data = MODEL.model_dump(mode="json")
    assert ModelSpec.from_dict(data, what="model", error=ManifestError) == MODEL
    data["graphs"][1]["inputs"][0]["name"] = "sound"
    with pytest.raises(ManifestError, match="has a graph with an input 'audio'"):
        ModelSpec.from_dict(data, what="model", error=ManifestError)
