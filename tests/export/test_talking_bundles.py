"""Faces that talk, trained, exported, proved, and made into films from a command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk.cli.main import run
from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.media.sound_windows import sound_windows
from gensdk_runtime.media.sounds import Sound
from gensdk_runtime.proof.verify import load_golden, verify_bundle
from gensdk_runtime.stream import StreamOptions, translate_stream
from gensdk_training.run import load_run
from support.inverting_bundle import write_inverting_bundle
from support.sounds import tone, wav
from support.talking import RATE, SAMPLES, talking_digits, talking_digits_file
from support.tiny import SETTINGS
from support.videos import sound_of, times_of

SECONDS = 0.5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command line, as a user makes it."""
    folder, data = tmp_path_factory.mktemp("talking"), str(talking_digits_file())
    settings = [f"--set={key}={value}" for key, value in SETTINGS["talkinghead"].items()]
    given = [
        "--data",
        data,
        "--inputs",
        f"{data}:stills",
        "--sounds",
        "sounds",
        "--steps",
        "6",
        "--batch-size",
        "16",
    ]
    run_folder = folder / "run"
    assert run(["train", "talkinghead", *given, *settings, "--out", str(run_folder), "--no-progress"]) == 0
    out = folder / "talk.gsdk"
    export_run(run_folder, out, ExportOptions(fp16=True, keep_examples=True))
    return out


@pytest.fixture
def talker(bundle: Path) -> Any:
    with Generator.load(bundle, backend="onnxruntime") as generator:
        yield generator


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A face, and what it says."""
    face = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (tmp_path / "face.png").write_bytes(encode_image(face, ".png", {}))
    (tmp_path / "speech.wav").write_bytes(wav(tone(SECONDS, RATE), RATE))
    return tmp_path


def test_real_faces_and_sounds_prove_the_bundle(bundle: Path) -> None:
    assert verify_bundle(bundle).ok
    examples = load_run(bundle.with_name("run")).examples
    assert examples is not None
    assert examples.heard is not None
    with Bundle.open(bundle) as opened:
        golden = load_golden(opened)
        assert set(opened.manifest.precisions) == {"fp32", "fp16"}
    heard = {row.tobytes() for trajectory in golden.trajectories for row in trajectory.conditions["audio"]}
    assert {row.tobytes() for row in examples.heard} & heard


def test_a_frame_is_the_same_alone_and_among_others(talker: Generator) -> None:
    data = talking_digits()
    assert data.windows is not None
    windows, face = data.windows.at(np.arange(7)), data.images[3:4]
    together = talker.sample(image=face, audio=windows).array
    assert len(together) == 7
    alone = [talker.sample(image=face, audio=window).array[0] for window in windows]
    np.testing.assert_array_equal(together, np.stack(alone))
    split = talker.sample(7, image=face, audio=windows, batch_size=3).array
    np.testing.assert_array_equal(together, split)
    assert np.abs(together - together[:1]).max() > 0


def test_the_upper_half_of_a_face_stays(talker: Generator) -> None:
    face = talking_digits().images[5:6]
    made = talker.sample(image=face, audio=np.zeros(SAMPLES, np.float32), output_type="uint8").images
    np.testing.assert_array_equal(made[0, :4], face[0, :4])


def test_as_many_faces_as_windows_or_one(talker: Generator) -> None:
    faces, windows = talking_digits().images[:2], np.full((3, SAMPLES), 0.1, np.float32)
    for n in (None, 3):
        with pytest.raises(InputError, match=r"one image, or one for each of the 3|one image for each of the 3"):
            talker.sample(n, image=faces, audio=windows)
    with pytest.raises(InputError, match="is made from a sound: pass audio"):
        talker.translate(faces[0])
    assert not talker.can("translate")


def test_a_film_has_the_frames_of_its_windows_and_the_sound(talker: Generator, files: Path) -> None:
    sound, out = tone(SECONDS, RATE)[:, 0], files / "talk.mp4"
    shown: list[Any] = []
    face = decode((files / "face.png").read_bytes(), 1)
    report = translate_stream(
        talker, files / "face.png", [out, lambda frame: shown.append(frame.result)], options(files, fps=20)
    )
    assert (report.frames, report.ended, report.live) == (10, "source", False)
    windows = sound_windows(sound, rate=RATE, fps=20, size=SAMPLES)
    expected = talker.sample(image=face[None], audio=windows, output_type="uint8").images
    np.testing.assert_array_equal(np.stack(shown), expected)
    np.testing.assert_allclose(times_of(out), np.arange(10) / 20, atol=1e-3)
    ((codec, begin, end),) = sound_of(out)
    assert codec == "aac"
    assert begin == pytest.approx(0, abs=0.2)
    assert end == pytest.approx(SECONDS, abs=0.2)


def test_faces_of_another_size_are_no_faces_of_the_model(talker: Generator) -> None:
    face = talking_digits().images[0]  # [8, 8, 1], which might be eight faces of one column
    for given in (face, np.zeros((1, 4, 4, 1), np.uint8)):
        with pytest.raises(InputError, match="expected faces of 8 x 8"):
            talker.sample(image=given, audio=np.zeros(SAMPLES, np.float32))


def test_frames_without_their_sound_are_told(talker: Generator, files: Path) -> None:
    report = translate_stream(talker, files / "face.png", files / "frames", options(files, fps=4))
    assert any("takes the frames without the sound" in remark for remark in report.remarks)


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (np.zeros(80, np.float32), "as a Sound, or as the path of a .wav or .flac file, got ndarray"),
        (Sound(np.zeros(80, np.float32), RATE), r"expected a sound \[samples, channels\]"),
        (Sound(np.zeros((0, 1), np.float32), RATE), "of one sample or more"),
    ],
)
def test_sounds_that_are_none_are_refused(talker: Generator, files: Path, audio: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        translate_stream(talker, files / "face.png", files / "talk.mp4", StreamOptions(audio=audio))
    assert not (files / "talk.mp4").exists()


def test_channels_that_a_film_can_not_have_are_told(talker: Generator, files: Path) -> None:
    sound = Sound(np.zeros((4800, 9), np.float32), 48_000)
    with pytest.raises(InputError, match="encoders don't take this size, these channels of sound"):
        translate_stream(talker, files / "face.png", files / "talk.mp4", StreamOptions(audio=sound))
    assert not (files / "talk.mp4").exists()


def options(files: Path, **more: Any) -> StreamOptions:
    return StreamOptions(audio=files / "speech.wav", **more)


def test_another_rate_and_another_size_are_brought_to_the_models_and_told(talker: Generator, files: Path) -> None:
    face = np.random.default_rng(1).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    sound = Sound(tone(SECONDS, 2 * RATE), 2 * RATE)
    report = translate_stream(talker, face, lambda frame: None, StreamOptions(audio=sound))
    assert report.frames == 13
    assert any(f"{2 * RATE} Hz to {RATE} Hz, resampled" in remark for remark in report.remarks)
    assert any("24 x 40 pixels were brought to 8 x 8" in remark for remark in report.remarks)


def test_as_from_a_microphone_frames_have_an_age_and_come_at_their_own_speed(
    talker: Generator, files: Path
) -> None:
    report = translate_stream(talker, files / "face.png", lambda frame: None, options(files, live=True))
    assert report.live
    assert report.frames + report.dropped == 13
    assert report.seconds >= 12 / 25
    assert report.age_ms["p50"] >= 1e3 * SAMPLES / RATE / 2


def test_the_command_line_makes_a_film(bundle: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = files / "talk.mp4"
    given = ["--audio", files / "speech.wav", "--source", files / "face.png", "--sink", out, "--fps", 20, "--json"]
    assert run(["translate", str(bundle), "--backend", "onnxruntime", *map(str, given)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["dropped"]) == (10, 0)
    assert len(sound_of(out)) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--sink", "talk.mp4"], "makes a face talk: pass audio too"),
        (["--audio", "none.wav", "--sink", "talk.mp4"], "no file"),
        (["--audio", "cut.wav", "--sink", "talk.mp4"], "it is cut"),
        (["--audio", "text.wav", "--sink", "talk.mp4"], "it is no WAV nor FLAC file"),
        (["--audio", "speech.wav", "--sink", "talk.gif"], "a .gif holds no sound"),
        (["--audio", "speech.wav", "--sink", "talk.mp4", "--fps", "0"], "expected fps above 0"),
        (["--audio", "speech.wav", "--sink", "talk.mp4", "--size", "8x8"], "size is for moving pictures"),
        (["--audio", "speech.wav", "--sink", "talk.mp4", "--skip-similar", "1"], "skip_similar is for moving"),
        (["--sink", "talk.mp4", "--fps", "20"], "fps is for the film of a talking face"),
        (["--audio", "speech.wav", "--sink", "talk.mp4", "--source", "faces"], "one still face, got 2 images"),
    ],
)
def test_what_can_not_talk_is_refused_in_one_line(
    bundle: Path, files: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "cut.wav").write_bytes((files / "speech.wav").read_bytes()[:-100])
    (files / "text.wav").write_bytes(b"hello")
    (files / "faces").mkdir()
    for name in ("a.png", "b.png"):
        (files / "faces" / name).write_bytes((files / "face.png").read_bytes())
    before = sorted(files.iterdir())
    names = {"talk.mp4", "talk.gif", "none.wav", "cut.wav", "text.wav", "speech.wav", "faces"}
    placed = [str(files / each) if each in names else each for each in arguments]
    source = [] if "--source" in arguments else ["--source", str(files / "face.png")]
    assert run(["translate", str(bundle), "--backend", "onnxruntime", *source, *placed]) == 5
    err = capsys.readouterr().err
    assert reason in err
    assert len(err.splitlines()) == 1
    assert sorted(files.iterdir()) == before


def test_its_card_says_how_a_face_talks(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (bundle / "README.md").read_text()
    assert "--audio speech.wav --source face.png --sink talk.mp4" in card
    assert f"sound_windows(speech, rate={RATE}, fps=25, size={SAMPLES})" in card
    assert run(["evaluate", str(bundle), "--data", "digits", "-n", "60"]) == 5
    assert "compare its translations with their targets" in capsys.readouterr().err


def test_other_models_make_no_face_talk(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--audio", files / "speech.wav", "--source", files / "face.png", "--sink", files / "talk.mp4"]
    negative = write_inverting_bundle(files / "negative.gsdk")
    assert run(["translate", str(negative), "--backend", "onnxruntime", *map(str, given)]) == 5
    assert "model 'negative' makes no face talk; leave audio out" in capsys.readouterr().err
    assert not (files / "talk.mp4").exists()
