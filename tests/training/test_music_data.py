"""Music as data: voices as JSON, MIDI files, folders and archives; phrases, keys, splits, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.music.notes import Music
from gensdk_runtime.spec.pianoroll import PianorollSpec, TrackSpec
from gensdk_training.data import midi_files, voices_json
from gensdk_training.data.description import describe
from gensdk_training.data.load import load_data
from gensdk_training.data.piano_rolls import PianorollDataset
from gensdk_training.family import DataInfo
from gensdk_training.run_config import DataConfig
from support.music import FORM, voices, voices_file


def opened(source: Path | str, **options: Any) -> PianorollDataset:
    data = load_data(str(source), **options)
    assert isinstance(data, PianorollDataset)
    return data


def everything(data: PianorollDataset) -> np.ndarray:
    return data.batch(np.arange(len(data))).images


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A file of two pieces, and one for the test."""
    return written(tmp_path / "few.json", {"train": [voices(0), voices(1)], "test": [voices(2)], "valid": []})


def test_voices_become_phrases(few: Path) -> None:
    data = opened(few)
    assert data.form.shape == (2, 32, 24)
    assert (data.form.lowest_pitch, data.form.bars, data.form.steps_per_beat) == (48, 2, 4)
    assert len(data) == 2 * 3, "one from each bar but the last"
    first = everything(data)[0]
    for step, pitches in enumerate(voices(0)[:32]):
        for voice, pitch in enumerate(pitches):
            assert np.flatnonzero(first[voice, step]).tolist() == ([] if pitch < 0 else [pitch - 48])
    np.testing.assert_array_equal(everything(data)[1][:, :16], first[:, 16:])
    lines = "\n".join(describe(data).lines())
    assert "data: few, 6 piano rolls of 2 bars, 2 tracks" in lines
    assert "train: 2 pieces of the file, beside test 1, valid 0" in lines
    assert "a voice that keeps its pitch holds its note" in lines
    assert len(opened(few, split="test")) == 3


def test_gzip_null_and_a_plain_list_are_read(few: Path, tmp_path: Path) -> None:
    silent = [[None if pitch < 0 else float(pitch) for pitch in step] for step in voices(0)]
    packed = tmp_path / "v.json.gz"
    packed.write_bytes(gzip.compress(json.dumps([silent, voices(1)]).encode()))
    np.testing.assert_array_equal(everything(opened(packed)), everything(opened(few)))
    parts = [opened(packed, holdout=0.5, split=split) for split in ("train", "test")]
    assert [len(part) for part in parts] == [3, 3], "pieces are held out, and not phrases of them"


def test_phrases_are_moved_to_keys_that_have_room(few: Path) -> None:
    plain, moved = opened(few), opened(few, transpose=3)
    assert moved.form == plain.form
    np.testing.assert_array_equal(everything(moved.as_they_are()), everything(plain))
    batch, keys = everything(moved), moved.places[:, 2]
    assert set(keys.tolist()) == {0, -1, -2, -3}, "above there is no room"
    assert (batch.sum(axis=(1, 2, 3)) == [plain_sum(moved, place) for place in moved.places]).all(), (
        "no note is lost"
    )
    for phrase, (piece, first, key) in zip(batch, moved.places.tolist(), strict=True):
        own = moved.rolls[piece][:, first : first + 32]
        low, high = max(key, 0), 24 + min(key, 0)
        np.testing.assert_array_equal(phrase[:, :, low:high], own[:, :, low - key : high - key])
    assert "with those moved to other keys" in "\n".join(describe(moved).lines())
    assert moved.fingerprint != plain.fingerprint


def plain_sum(data: PianorollDataset, place: np.ndarray) -> float:
    return float(data.rolls[place[0]][:, place[1] : place[1] + 32].sum())


def test_other_bars_and_what_is_left_out(tmp_path: Path) -> None:
    silence = [[-1, -1]] * 64
    path = written(tmp_path / "v.json", [voices(0), voices(1)[:37], voices(2)[:15], silence])
    lines = "\n".join(describe(opened(path)).lines())
    assert "1 pieces shorter than 2 bars, left out" in lines
    assert "20 steps at the ends of pieces that fill no bar, cut off" in lines
    assert "3 silent phrases, left out" in lines
    assert opened(path, bars=4).form.bars == 4
    with pytest.raises(InputError, match="no piece has 200 bars in which something sounds; set fewer --bars"):
        opened(path, bars=200)


WRONG: dict[str, tuple[Any, str]] = {
    "no pieces": ({}, "expected pieces as lists of steps"),
    "numbers": ([1, 2], "expected pieces as lists of steps"),
    "text": ({"train": "abc"}, "expected pieces as lists of steps"),
    "voices that change": ([[[60], [60, 61]]], "voices, the same in each step"),
    "no voices": ([[[], []]], "voices, the same in each step"),
    "too many voices": ([[[60] * 16]], "voices, the same in each step"),
    "a pitch of 128": ([[[128]]], "expected pitches from 0 to 127"),
    "a pitch of -2": ([[[-2]]], "expected pitches from 0 to 127"),
    "half a tone": ([[[60.5]]], "expected whole numbers as pitches"),
    "a word": ([[["C4"]]], "expected whole numbers as pitches"),
    "true": ([[[True]]], "expected whole numbers as pitches"),
    "silence": ([[[-1], [-1]]], "there is no note in it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_voices_are_refused(name: str, tmp_path: Path) -> None:
    content, message = WRONG[name]
    path = written(tmp_path / "v.json", content)
    with pytest.raises(InputError, match=message) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000, "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"[[[NaN]]]", "expected whole numbers"),
        (b"[[[1e400]]]", "expected whole numbers"),
    ],
)
def test_broken_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        opened(path)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices_json, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(midi_files, "MAX_UNPACKED", 1 << 20)
    (tmp_path / "v.json.gz").write_bytes(gzip.compress(bytes(1 << 22)))
    with pytest.raises(InputError, match="over 1 MiB unpacked"):
        opened(tmp_path / "v.json.gz")
    (tmp_path / "v.json.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="can't read"):
        opened(tmp_path / "v.json.gz")
    packed(tmp_path / "m.tar.gz", {"big.mid": bytes(1 << 22)})
    with pytest.raises(InputError, match="GiB unpacked"):
        opened(tmp_path / "m.tar.gz")


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def song(piece: int, names: tuple[str, ...] = ("melody", "bass")) -> bytes:
    """A MIDI file of the voices of a piece, in four bars."""
    tracks = tuple(TrackSpec(name=name, program=program) for name, program in zip(names, (73, 32), strict=False))
    form = PianorollSpec.model_validate(
        {**dict(FORM), "tracks": tracks, "bars": 4, "lowest_pitch": 48, "pitches": 36}
    )
    roll = np.zeros(form.shape)
    for step, pitches in enumerate(voices(piece)):
        for voice in range(len(tracks)):
            if pitches[voice] >= 0:
                roll[voice, step, pitches[voice] - 48] = 1
    return Music.from_roll(roll, form).midi()


def test_midi_is_what_voices_are(few: Path, tmp_path: Path) -> None:
    """The same music in a folder, in an archive, and as JSON."""
    folder = tmp_path / "songs" / "inner"
    folder.mkdir(parents=True)
    for piece in (0, 1):
        (folder / f"{piece}.MID").write_bytes(song(piece))
    (folder / "readme.txt").write_text("songs")
    archive = packed(tmp_path / "songs.tar.gz", {"x/1.mid": song(1), "x/0.midi": song(0), "../up.md": b"x"})
    for source in (tmp_path / "songs", archive):
        data = opened(source)
        np.testing.assert_array_equal(everything(data), everything(opened(few)))
        assert [track.name for track in data.form.tracks] == ["melody", "bass"]
        assert [track.program for track in data.form.tracks] == [73, 32]
        lines = "\n".join(describe(data).lines())
        assert "tracks by their names: melody, bass" in lines
        assert "one tempo of all, the median: 120 beats a minute" in lines
        assert "left out  1 files" in lines
    assert len(opened(folder / "0.MID")) == 3


def test_files_that_can_t_be_read_are_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "good.mid").write_bytes(song(0))
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    with caplog.at_level(logging.WARNING, "gensdk.data"):
        data = opened(tmp_path)
    assert data.skipped.count == 1
    assert "bad.mid: this is no MIDI file" in caplog.text
    (tmp_path / "good.mid").unlink()
    with pytest.raises(InputError, match="no MIDI file in it that can be read"):
        opened(tmp_path)


def test_tracks_without_common_names_become_one(tmp_path: Path) -> None:
    for piece, names in enumerate((("a", "b"), ("c", "d"), ("e", "f"))):
        (tmp_path / f"{piece}.mid").write_bytes(song(piece, names))
    data = opened(tmp_path)
    assert len(data.form.tracks) == 1
    assert everything(data).sum(axis=3).max() == 2
    assert "all but drums is one track" in "\n".join(describe(data).lines())


def test_a_share_of_the_files_is_held_out(tmp_path: Path) -> None:
    for piece in range(5):
        (tmp_path / f"{piece}.mid").write_bytes(song(piece))
    train, test = (opened(tmp_path, holdout=0.4, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (9, 6)
    assert train.form == test.form
    assert "test: 2 of 5 pieces" in test.findings.split


def test_phrases_in_the_pitches_of_a_model(few: Path) -> None:
    data = opened(few)
    narrow = data.form.model_copy(update={"lowest_pitch": 60, "pitches": 12})
    cut, lost = data.in_format(narrow)
    np.testing.assert_array_equal(everything(cut), everything(data)[..., 12:])
    assert lost > 0
    back, none = cut.in_format(data.form)
    np.testing.assert_array_equal(everything(back)[..., 12:], everything(data)[..., 12:])
    assert none == 0
    with pytest.raises(InputError, match="the model makes piano rolls of 3 bars, 2 tracks at 4 steps a beat"):
        data.in_format(data.form.model_copy(update={"bars": 3}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size is for images"),
        ({"channels": 1}, "channels is for images"),
        ({"labels": "y"}, "music has no labels"),
        ({"bars": 0}, "expected bars from 1"),
        ({"transpose": 12}, "expected transpose from 0 to 11"),
        ({"steps_per_beat": 8}, "its steps are a quarter of a beat"),
        ({"holdout": 0.1}, "has its own test part"),
        ({"value_range": (0, 1)}, "value_range is for images"),
    ],
)
def test_options_that_music_does_not_have_are_refused(few: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(few, **options)


@pytest.mark.parametrize("option", ["bars", "steps_per_beat", "transpose"])
def test_options_of_music_are_refused_for_images(option: str) -> None:
    with pytest.raises(
        InputError, match=f"these data are images, and {option} is for music; give music, or leave it out"
    ):
        load_data("digits", **{option: 2})  # type: ignore[arg-type]


def test_music_survives_json_and_is_neither_images_nor_points() -> None:
    info = DataConfig(source=str(voices_file())).load().info
    assert DataInfo.from_json(info.to_json(), what="info") == info
    assert (info.kind, info.on_a_grid) == ("piano rolls", False)
    for attempt in (lambda: info.image, info.require_points):
        with pytest.raises(InputError, match="are piano rolls; use other data"):
            attempt()


def test_whole_pieces_end_where_they_end(tmp_path: Path) -> None:
    silence = [[-1, -1]] * 20
    path = written(tmp_path / "v.json", {"train": [voices(0), voices(1)[:37], silence], "test": [voices(2) * 2]})
    data = opened(path, whole=True)
    assert data.form.bars == 8, "as the longest of any part"
    assert data.info.ends
    batch = data.batch(np.arange(2))
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [64, 37]
    np.testing.assert_array_equal(batch.images[1, :, :32], everything(opened(path))[3])
    assert not batch.images[1, :, 37:].any()
    assert batch.images[1, :, 36].any()
    lines = "\n".join(describe(data).lines())
    assert "2 of 3 pieces, whole, up to 8 bars" in lines
    assert "1 silent pieces, left out" in lines
    assert data.fingerprint != opened(path, bars=8, split="test").fingerprint
    short = opened(path, whole=True, bars=3)
    assert len(short) == 1
    assert "1 pieces longer than 3 bars, left out" in "\n".join(describe(short).lines())
    with pytest.raises(InputError, match="no piece in which something sounds has at most 2 bars; set more --bars"):
        opened(path, whole=True, bars=2)
    assert opened(path).batch(np.arange(1)).lengths is None, "phrases are of one length"


def test_whole_pieces_are_moved_to_keys_that_have_room(tmp_path: Path) -> None:
    wide, narrow = [[71, 48]] * 32, [[62, 50]] * 20 + [[64, -1]] * 5
    path = written(tmp_path / "v.json", {"train": [narrow], "test": [wide]})
    plain, moved = opened(path, whole=True), opened(path, whole=True, transpose=3)
    np.testing.assert_array_equal(everything(moved.as_they_are()), everything(plain))
    assert moved.places[:, 2].tolist() == [0, -1, 1, -2, 2, 3], "two semitones below it there is no room"
    batch = moved.batch(np.arange(len(moved)))
    for roll, (piece, _, key) in zip(batch.images, moved.places.tolist(), strict=True):
        np.testing.assert_array_equal(roll, np.roll(plain.batch(np.array([piece])).images[0], key, axis=2))


def test_a_validation_part_is_the_files_own(few: Path, tmp_path: Path) -> None:
    three = written(tmp_path / "three.json", {name: [voices(0)] for name in ("train", "valid", "test")})
    assert len(opened(three, split="valid")) == 3
    listed = written(tmp_path / "list.json", [voices(0), voices(1)])
    (tmp_path / "one.mid").write_bytes(song(0))
    for source in (listed, tmp_path / "one.mid"):
        with pytest.raises(InputError, match=r"validation part|no part 'valid'"):
            opened(source, split="valid")


def test_whole_is_for_music() -> None:
    with pytest.raises(InputError, match="these data are images, and whole is for music"):
        load_data("digits", whole=True)
