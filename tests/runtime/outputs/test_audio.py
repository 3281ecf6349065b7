"""Models of sounds: sampling, files, pictures, players, sounds that end early, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.errors import GensdkWarning, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.audio_files import decode_audio, read_audio
from gensdk_runtime.media.audio_picture import LEFT, SHOWN, TOP, WAVE, WIDTH, sound_picture
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.wav import wav_comment
from gensdk_runtime.outputs.audio import PAUSE, PLAYED, PLAYED_BYTES
from gensdk_runtime.outputs.base import output_of
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.audio import AudioSpec
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.image_bytes import settings_in
from support.models import feedforward_model, generator, tensor
from support.sounds import needs_soundfile

RATE, LENGTH = 8000, 800


def audio_model(channels: int = 1) -> ModelSpec:
    out = tensor("audio", "output", "batch", LENGTH, channels, value_range=(-1.0, 1.0))
    return ModelSpec(
        name="voice",
        family="test",
        program=FeedforwardSpec(graph="generator"),
        graphs=(
            GraphSpec(
                name="generator", inputs=(tensor("z", "noise", "batch", 4, distribution="normal"),), outputs=(out,)
            ),
        ),
        output=AudioSpec(samples=LENGTH, channels=channels, sample_rate=RATE),
        max_batch=4,
    )


def opened(level: float = 0.5, channels: int = 1) -> Generator:
    """Tones that z decides."""

    def generate(feeds: Feeds) -> dict[str, np.ndarray]:
        hz = 500 + 300 * np.abs(feeds["z"][:, :1, None])
        times = np.arange(LENGTH, dtype=np.float32)[None, :, None] / RATE
        sound = level * np.sin(2 * np.pi * hz * times)
        return {"audio": np.repeat(sound, channels, axis=2).astype(np.float32)}

    return generator(audio_model(channels), {"generator": generate})


def drawn(n: int = 4, *, level: float = 0.5, channels: int = 1, lengths: list[int] | None = None) -> Samples:
    with opened(level, channels) as model:
        samples = model.sample(n, seed=3)
    return samples if lengths is None else replace(samples, lengths=np.array(lengths, np.int64))


def test_sounds_don_t_depend_on_their_batch() -> None:
    with opened() as model:
        samples, head = model.sample(11, seed=3), model.sample(3, seed=3, batch_size=2)
        again = model.sample(settings=samples[7:9].settings)
    assert samples.audio.shape == (11, LENGTH, 1)
    assert samples.audio.dtype == np.float32
    assert samples.audio is samples.array
    assert samples.sample_rate == RATE
    np.testing.assert_array_equal(head.audio, samples.audio[:3])
    np.testing.assert_array_equal(again.audio, samples.audio[7:9])


def test_they_are_told_by_length_and_rate() -> None:
    assert "4 sounds of 0.1 s at 8000 Hz, of voice, from seed 3" in repr(drawn())
    assert "sounds of 0.1 s at 8000 Hz, 2 channels" in repr(drawn(channels=2))
    assert "sounds of 0.1 s at 8000 Hz, 2 of them shorter" in repr(drawn(lengths=[800, 10, 800, 300]))
    output = output_of(audio_model().output)
    assert output.of_shape == "sounds of 0.1 s at 8000 Hz"
    assert output.facts == "0.1 s (800 samples) at 8000 Hz, 1 channel, full scale is [-1, 1]"
    assert output_of(AudioSpec(samples=20000, sample_rate=8000)).of_shape == "sounds of 2.5 s at 8000 Hz"


def test_the_manifest_holds_them_and_refuses_what_is_none() -> None:
    model = audio_model()
    assert ModelSpec.from_json(model.to_json(), what="model") == model
    plain = model.model_dump(mode="json")
    for field, value in (
        ("samples", 0),
        ("samples", 2**29),
        ("channels", 65),
        ("sample_rate", 0),
        ("sample_rate", 10**6),
        ("value_range", [0.0, 1.0]),
        ("rate", 8000),
    ):
        with pytest.raises(ManifestError, match="output"):
            ModelSpec.from_dict(
                {**plain, "output": {**plain["output"], field: value}}, what="model", error=ManifestError
            )


@needs_soundfile
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_one_sound_comes_back_from_a_file(suffix: str, channels: int, tmp_path: Path) -> None:
    samples = drawn(1, channels=channels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sound = read_audio(samples.save(tmp_path / f"x{suffix}"))
    assert sound.sample_rate == RATE
    assert np.abs(sound.samples - samples.audio[0]).max() <= 0.5 / 32768


def test_a_wav_carries_the_settings_that_draw_it_again(tmp_path: Path) -> None:
    samples = drawn(3)
    folder = samples.save(tmp_path / "sounds")
    assert sorted(file.name for file in folder.iterdir()) == ["00000.wav", "00001.wav", "00002.wav"]
    settings = json.loads(wav_comment((folder / "00001.wav").read_bytes()))
    with opened() as model:
        again = model.sample(settings=settings)
    np.testing.assert_array_equal(again.audio[0], samples.audio[1])
    with pytest.raises(InputError, match="holds sounds from before"):
        samples.save(folder)


def test_several_are_one_file_with_pauses_and_that_is_said(tmp_path: Path) -> None:
    samples = drawn(3, lengths=[800, 5, 100])
    with pytest.warns(GensdkWarning, match=r"3 sounds are one file, 0\.25 s of silence between"):
        sound = read_audio(samples.save(tmp_path / "all.wav"))
    pause = round(PAUSE * RATE)
    assert len(sound.samples) == 800 + 5 + 100 + 2 * pause
    assert (sound.samples[800 : 800 + pause] == 0).all()
    assert np.abs(sound.samples[800 + pause : 805 + pause] - samples.audio[1, :5]).max() <= 1 / 32768


@pytest.mark.parametrize("target", ["x.wav", "folder"])
def test_what_is_beyond_full_scale_is_clipped_and_said(target: str, tmp_path: Path) -> None:
    samples = drawn(1, level=2.0)
    beyond = int((np.abs(samples.audio) > 1).sum())
    assert beyond > 100
    with pytest.warns(
        GensdkWarning, match=rf"{beyond} of 800 samples lie beyond full scale, the loudest \+6\.0 dB"
    ):
        path = samples.save(tmp_path / target)
    sound = read_audio(path if path.is_file() else path / "00000.wav")
    assert np.abs(sound.samples - np.clip(samples.audio[0], -1, 1)).max() <= 1 / 32768
    with np.load(samples.save(tmp_path / "x.npz")) as file:
        np.testing.assert_array_equal(file["array"], samples.audio)


def test_sounds_that_end_early_are_as_long_as_they_are_in_files(tmp_path: Path) -> None:
    samples = drawn(3, lengths=[800, 40, 100])
    folder = samples.save(tmp_path / "sounds")
    assert [len(read_audio(folder / f"{i:05d}.wav").samples) for i in range(3)] == [800, 40, 100]
    with np.load(samples.save(tmp_path / "x.npz")) as file:
        assert file["lengths"].tolist() == [800, 40, 100]
        assert int(file["sample_rate"]) == RATE
    assert samples[1].lengths is not None
    assert samples[1].lengths.tolist() == [40]
    assert drawn()[1].lengths is None
    with pytest.raises(InputError, match="ended before it began"):
        drawn(1, lengths=[0]).save(tmp_path / "none.wav")


@pytest.mark.parametrize("n", [1, 3, SHOWN + 2])
def test_the_picture_shows_waveforms_and_spectrograms(n: int, tmp_path: Path) -> None:
    samples = drawn(n)
    picture = samples.save(tmp_path / "x.png")
    assert settings_in(picture)["seeds"] == [list(key) for key in samples.seeds]
    image = decode(picture.read_bytes(), 3)
    np.testing.assert_array_equal(image, samples.picture())
    wave = image[TOP : TOP + WAVE, LEFT : LEFT + WIDTH]
    rows = np.flatnonzero((wave == (0x1F, 0x77, 0xB4)).all(axis=2).any(axis=1))
    assert (rows[0] / WAVE, rows[-1] / WAVE) == pytest.approx((0.25, 0.75), abs=0.02)


def test_a_tone_is_bright_at_its_frequency_and_red_where_it_is_too_loud() -> None:
    loud, soft = drawn(1, level=1.5), drawn(1, level=0.5, lengths=[400])
    assert (loud.picture() == (0xD6, 0x27, 0x28)).all(axis=2).any()
    assert not (soft.picture() == (0xD6, 0x27, 0x28)).all(axis=2).any()
    spectrum = loud.picture()[TOP + WAVE + 20 : -40, LEFT + 10 : LEFT + WIDTH - 10].astype(int).sum(axis=(1, 2))
    hz = 500 + 300 * float(np.abs(np.fft.rfft(loud.audio[0, :, 0])).argmax() * 10 - 500) / 300
    share = 1 - (int(spectrum.argmax()) + 6) / 160
    assert share * RATE / 2 == pytest.approx(hz, abs=120)


def test_silence_and_short_sounds_have_pictures_too() -> None:
    samples = drawn(2, level=0.0, lengths=[1, 0])
    assert samples.picture().shape[2] == 3
    assert samples._repr_png_() is not None
    for wrong in ([], [np.full((5, 1), np.nan, np.float32)]):
        with pytest.raises(InputError, match="expected sounds to draw"):
            sound_picture(wrong, RATE)


def test_a_notebook_plays_the_first_ones() -> None:
    page = drawn(PLAYED + 3)._repr_html_()
    assert page is not None
    sources = re.findall(r'<audio controls preload="none" src="data:audio/wav;base64,([^"]+)">', page)
    assert [decode_audio(base64.b64decode(source)).seconds for source in sources] == [0.1] * PLAYED
    assert "and 3 more" in page
    assert "data:image/png;base64," in page
    assert len(page) < 2 * PLAYED_BYTES
    with generator(feedforward_model()) as model:
        assert model.sample(1)._repr_html_() is None


def test_what_is_too_large_for_a_page_is_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gensdk_runtime.outputs.audio.PLAYED_BYTES", 2 * LENGTH - 1)
    assert drawn()._repr_html_() is None


@pytest.mark.parametrize("name", ["some.gif", "x.mp3", "x.csv"])
def test_other_files_are_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't write sounds to .*; use a file with one of \.wav, \.flac, \.npz"):
        drawn().save(tmp_path / name)
    for options in ({"layout": "grid"}, {"columns": 2}, {"scale": 2}):
        for target in ("x.wav", "folder"):
            with pytest.raises(InputError, match="are for images"):
                drawn().save(tmp_path / target, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_what_is_for_other_kinds_is_refused() -> None:
    with opened() as model, generator(feedforward_model()) as images:
        for attempt, message in (
            (lambda: model.sample(1).images, "these samples are sounds, not images; take audio, or array"),
            (lambda: model.sample(1).points, "these samples are sounds, not points; take audio, or array"),
            (lambda: images.sample(1).audio, "these samples are images, not audio; take images, or array"),
            (lambda: images.sample(1).sample_rate, "these samples are images, which have no sample rate"),
            (lambda: model.sample(1, output_type="uint8"), "sounds, which have no bytes"),
        ):
            with pytest.raises(InputError, match=message):
                attempt()


@pytest.mark.parametrize("shape", [(LENGTH,), (3, LENGTH), (3, LENGTH, 1)])
def test_given_sounds_are_checked(shape: tuple[int, ...]) -> None:
    output = output_of(audio_model().output)
    sound = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    given = output.given(sound)
    np.testing.assert_array_equal(given, sound.reshape(-1, LENGTH, 1))
    levels = output.given(sound, levels=5)
    assert set(np.unique(levels).tolist()) <= {-1, -0.5, 0, 0.5, 1}
    for wrong, message in (
        (sound[..., None, None], "expected sounds \\[n, 800, 1\\] at 8000 Hz"),
        (2 * sound, "beyond or NaN"),
        (sound * np.float32(np.nan), "beyond or NaN"),
        ((sound * 100).astype(np.int16), "expected sounds as floats"),
    ):
        with pytest.raises(InputError, match=message):
            output.given(wrong)
