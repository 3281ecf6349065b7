"""A model of music through all verbs: trained on a file, exported, verified, sampled, inspected, measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gensdk.cli.main import run
from gensdk_runtime.media.music.midi_reading import read_midi
from support.music import voices_file
from support.tiny import SETTINGS


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    settings = [part for key, value in SETTINGS["musegan"].items() for part in ("--set", f"{key}={value}")]
    few = ["--steps", 2, "--batch-size", 8, "--preview-every", 2, "--no-tensorboard", "--transpose", 2]
    train = ["train", "musegan", "--data", voices_file(), "--out", folder / "run", *few, *settings]
    for arguments in (train, ["export", folder / "run", "-o", folder / "some.gsdk", "--fp16"]):
        assert run([str(argument) for argument in arguments]) == 0
    assert len(list((folder / "run" / "previews").glob("*.png"))) == 1
    return folder / "some.gsdk"


def test_every_verb_takes_a_model_of_music(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tunes", "tunes.mid", "tunes.wav", "tunes.png", "tunes.npz"):
        code, _, err = outcome(capsys, "sample", bundle, "-n", 4, "--seed", 3, "-o", tmp_path / name)
        assert (code, err) == (0, "")
    singles = [read_midi(path.read_bytes(), path.name).notes for path in sorted((tmp_path / "tunes").iterdir())]
    assert len(singles) == 4
    assert sum(map(len, singles)) == len(read_midi((tmp_path / "tunes.mid").read_bytes(), "x").notes)
    assert outcome(capsys, "interpolate", bundle, "--from", 3, "--to", 4, "-o", tmp_path / "walk.mid")[0] == 0
    assert outcome(capsys, "verify", bundle)[0] == 0
    assert "piano rolls of 2 bars, 2 tracks" in outcome(capsys, "inspect", bundle)[1]
    code, out, _ = outcome(capsys, "bench", bundle, "--duration", 0, "--iterations", 2, "--warmup", 0, "--json")
    assert (code, json.loads(out)["cases"][0]["subject"]["image"]) == (0, [2, 32, 24])
    assert "| piano rolls | 2 bars of 4 beats" in (bundle / "README.md").read_text()


def test_measures_stand_beside_the_data_and_the_baseline(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", bundle, "--data", voices_file(), "-n", 20, "-o", tmp_path / "page.html"]
    code, out, _ = outcome(capsys, *asked, "--json", tmp_path / "report.json")
    assert code == 0
    assert "share of notes of 3 steps or more" in out
    measures = {row["name"]: row for row in json.loads((tmp_path / "report.json").read_text())["measures"]}
    assert set(measures) >= {"empty_bars", "nearer"}
    assert measures["empty_bars"]["baseline"] is not None
    assert (tmp_path / "page.html").read_text().count("<img") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "BUNDLE", "-o", "x.gif"], "can't write piano rolls to x.gif"),
        (["sample", "BUNDLE", "-o", "x.mid", "--columns", "2"], "are for images"),
        (["evaluate", "BUNDLE", "--data", "VOICES", "--metrics", "fid"], "can't measure fid of music"),
        (["evaluate", "BUNDLE", "--data", "digits"], "these data are images, and bars is for music; give music"),
        (["evaluate", "digits-vae", "--data", "digits", "--metrics", "tonal_distance"], "they are for music"),
        (["export", "RUN", "-o", "x.gsdk", "--uint8"], "this is for images"),
        (["translate", "BUNDLE", "--source", "in.png", "--sink", "out.png"], "does not translate images"),
        (["train", "vae", "--data", "VOICES", "--out", "x"], "vae makes images, but 'voices' are piano rolls"),
        (["train", "musegan", "--data", "digits", "--out", "x"], "musegan makes piano rolls, but"),
        (
            ["train", "vae", "--data", "digits", "--out", "x", "--bars", "2"],
            "bars is for music; give music, or leave it out",
        ),
        (["train", "musegan", "--data", "VOICES", "--out", "x", "--augment", "flip"], "augment changes images"),
    ],
)
def test_what_music_does_not_have_is_refused_in_one_line(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"BUNDLE": str(bundle), "RUN": str(bundle.with_name("run")), "VOICES": str(voices_file())}
    code, out, err = outcome(capsys, *(known.get(argument, argument) for argument in arguments))
    assert code == 5
    assert out == ""
    assert message in err
    assert err.strip().count("\n") == 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of whole pieces, which end."""
    folder = tmp_path_factory.mktemp("pieces")
    settings = [part for key, value in SETTINGS["musicrnn"].items() for part in ("--set", f"{key}={value}")]
    few = ["--steps", 40, "--batch-size", 8, "--preview-every", 40, "--no-tensorboard", "--whole"]
    train = ["train", "musicrnn", "--data", voices_file(), "--out", folder / "run", *few, *settings]
    export = ["export", folder / "run", "-o", folder / "pieces.gsdk", "--fp16", "--one-call"]
    for arguments in (train, [*export, "--default", "temperature=0.9"]):
        assert run([str(argument) for argument in arguments]) == 0
    return folder / "pieces.gsdk"


def test_pieces_end_and_go_on_from_a_beginning(
    pieces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["sample", pieces, "-n", 6, "--seed", 1]
    for name in ("tunes", "tunes.mid", "tunes.wav", "tunes.png", "tunes.npz"):
        assert outcome(capsys, *asked, "-o", tmp_path / name)[0] == 0
    with np.load(tmp_path / "tunes.npz") as kept:
        lengths, rolls = kept["lengths"].tolist(), kept["array"]
        assert json.loads(str(kept["settings"]))["temperature"] == 0.9
    assert rolls.shape == (6, 2, 64, 24)
    for number, length in enumerate(lengths):
        assert not rolls[number, :, length:].any()
        notes = read_midi((tmp_path / "tunes" / f"{number:05d}.mid").read_bytes(), "x").notes
        assert max(note.end for note in notes) <= length * 120
    long = lengths.index(max(lengths))
    begin = ["sample", pieces, "-n", 3, "--prefix", tmp_path / "tunes" / f"{long:05d}.mid", "--prefix-length", 8]
    assert outcome(capsys, *begin, "-o", tmp_path / "more.npz")[0] == 0
    with np.load(tmp_path / "more.npz") as kept:
        np.testing.assert_array_equal(kept["array"][:, :, :8], np.repeat(rolls[long : long + 1, :, :8], 3, axis=0))
    assert outcome(capsys, "verify", pieces)[0] == 0
    code, out, _ = outcome(capsys, "evaluate", pieces, "--data", voices_file(), "-n", 20)
    assert (code, "phrases of 20 samples" in out) == (0, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "this is no MIDI file"), (b"MThd" + bytes(40), "header is broken"), (None, "can't read")],
)
def test_beginnings_that_are_no_midi_files(
    pieces: Path, tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "x.mid").write_bytes(content)
    asked = ["sample", pieces, "--prefix", tmp_path / "x.mid", "-o", tmp_path / "out.npz"]
    code, out, err = outcome(capsys, *asked)
    assert (code, out) == (5, "")
    assert message in err
    assert err.strip().count("\n") == 0
    assert not (tmp_path / "out.npz").exists()
