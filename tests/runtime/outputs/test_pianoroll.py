"""Piano rolls as an output: notes, files, pictures, sound, refusals."""

from __future__ import annotations

import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.errors import GensdkWarning, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.music import roll_picture as pictures
from gensdk_runtime.media.music.midi_reading import read_midi
from gensdk_runtime.media.music.notes import Music, Note, joined
from gensdk_runtime.media.music.roll_picture import colour, roll_picture
from gensdk_runtime.outputs.base import output_of
from gensdk_runtime.proof.drift import sample_drift
from gensdk_runtime.proof.golden import GoldenBounds
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.kinds import OUTPUTS
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.pianoroll import PianorollSpec, RollFormat, TrackSpec
from gensdk_runtime.spec.signature import GraphSpec
from support.models import generator, tensor

SPEC = PianorollSpec(
    tracks=(TrackSpec(name="lead", program=73), TrackSpec(name="bass", program=32)),
    lowest_pitch=48,
    pitches=24,
    steps_per_beat=2,
    beats_per_bar=4,
    bars=2,
    tempo=120.0,
)


def model() -> ModelSpec:
    z = tensor("z", "noise", "batch", 24, distribution="normal")
    made = tensor("pianoroll", "output", "batch", *SPEC.shape, value_range=(0.0, 1.0))
    return ModelSpec(
        name="band",
        family="test",
        program=FeedforwardSpec(graph="composer"),
        graphs=(GraphSpec(name="composer", inputs=(z,), outputs=(made,)),),
        output=SPEC,
        max_batch=4,
    )


def composer(feeds: Feeds) -> dict[str, Any]:
    """Two held notes where z is large."""
    roll = np.zeros((len(feeds["z"]), *SPEC.shape), np.float32)
    roll[:, :, 2:6] = (feeds["z"] > 1)[:, None, None, :]
    return {"pianoroll": roll}


@pytest.fixture
def drawn() -> Samples:
    with generator(model(), {"composer": composer}) as band:
        return band.sample(3, seed=1)


def test_music_is_what_the_roll_says(drawn: Samples) -> None:
    assert len(drawn.music) == 3
    for piece, roll in zip(drawn.music, drawn.array, strict=True):
        np.testing.assert_array_equal(piece.roll, roll == 1)
        assert all(note.start == 2 and note.duration == 4 for note in piece.notes)
        assert len(piece.notes) == 2 * int(roll[0, 2].sum())
        assert piece.seconds == 4.0
    assert drawn.music[0] == Music.from_roll(drawn.array[0], SPEC)
    assert drawn[0].music == drawn.music[:1]
    assert repr(drawn).startswith("<Samples: 3 piano rolls of 2 bars, 2 tracks, of band, from seed 1")


def test_each_form_refuses_the_other_kinds(drawn: Samples) -> None:
    for name in ("images", "points"):
        with pytest.raises(InputError, match=f"these samples are piano rolls, not {name}; take music, or array"):
            getattr(drawn, name)
    with Generator.load("digits-vae") as digits:
        pictured = digits.sample(1, seed=0)
    with pytest.raises(InputError, match="these samples are images, not music; take images, or array"):
        pictured.music  # noqa: B018


def test_files_of_music(drawn: Samples, tmp_path: Path) -> None:
    whole = read_midi(drawn.save(tmp_path / "tunes.mid").read_bytes(), "tunes.mid")
    assert len(whole.notes) == sum(len(piece.notes) for piece in drawn.music)
    assert [part.name for part in whole.parts] == ["lead", "bass"]
    folder = drawn.save(tmp_path / "tunes")
    assert sorted(path.name for path in folder.iterdir()) == ["00000.mid", "00001.mid", "00002.mid"]
    for path, piece in zip(sorted(folder.iterdir()), drawn.music, strict=True):
        assert path.read_bytes() == piece.midi()
    with wave.open(str(drawn.save(tmp_path / "tunes.wav"))) as file:
        seconds = file.getnframes() / file.getframerate()
    assert seconds == pytest.approx(3 * 4 + 2 * 2, abs=0.3), "pieces of two bars, and a bar between"
    with np.load(drawn.save(tmp_path / "tunes.npz")) as arrays:
        np.testing.assert_array_equal(arrays["array"], drawn.array)
        assert arrays["array"].dtype == np.uint8
    picture = decode(drawn.save(tmp_path / "tunes.png").read_bytes(), 3)
    np.testing.assert_array_equal(picture, drawn.picture())
    assert drawn._repr_png_() is not None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.gif", {}, "can't write piano rolls to .*; use a file with one of .mid, .png"),
        ("x.png", {"columns": 2}, "are for images, and these are piano rolls"),
        ("new", {"scale": 2}, "columns and scale are for images"),
    ],
)
def test_other_targets_are_refused(
    drawn: Samples, tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        drawn.save(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_music_from_before_is_refused(drawn: Samples, tmp_path: Path) -> None:
    drawn.save(tmp_path / "tunes")
    with pytest.raises(InputError, match=r"holds 3 MIDI files of an earlier run \(00000.mid\)"):
        output_of(SPEC).check_target(tmp_path / "tunes")
    with pytest.raises(InputError, match="holds 3 MIDI files"):
        drawn.save(tmp_path / "tunes")


def test_a_picture_shows_each_note_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    high, low = Note(start=0, track=0, pitch=71, duration=2), Note(start=15, track=1, pitch=48, duration=1)
    picture = roll_picture([Music((high, low), SPEC)])
    rows, columns = np.nonzero((picture == colour(0)).all(axis=2))
    roll = rows >= pictures.TOP  # above are the names of tracks
    assert set(rows[roll]) == set(range(pictures.TOP, pictures.TOP + pictures.HEIGHT))
    assert columns[roll].min() == pictures.LEFT + 2  # behind the dark edge
    assert columns[roll].max() == pictures.LEFT + 2 * pictures.WIDTH
    rows, columns = np.nonzero((picture[pictures.TOP :] == colour(1)).all(axis=2))
    assert rows.max() == 24 * pictures.HEIGHT - 1
    assert columns.max() == pictures.LEFT + 16 * pictures.WIDTH - 1
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1)
    assert roll_picture([Music((high,), SPEC)] * 5).shape[0] == picture.shape[0], "one, and the others are told of"


def test_tracks_that_sound_one_pitch_share_its_height() -> None:
    both = tuple(Note(start=0, track=track, pitch=60, duration=16) for track in (0, 1))
    picture = roll_picture([Music(both, SPEC)])[pictures.TOP :]
    areas = [int((picture == colour(track)).all(axis=2).sum()) for track in (0, 1)]
    assert areas[0] == areas[1] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lowest_pitch": 110}, "ends? above 127"),
        ({"tracks": ()}, "at least 1"),
        ({"tracks": tuple(TrackSpec(name=f"{i}") for i in range(16))}, "channels for 15"),
        ({"tempo": 0.0}, "greater than or equal to 10"),
        ({"bars": 0}, "greater than or equal to 1"),
        ({"value_range": (-1.0, 1.0)}, "0 and 1"),
        ({"pitches": 0}, "greater than or equal to 1"),
    ],
)
def test_formats_that_can_t_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PianorollSpec.model_validate({**dict(SPEC), **change})
    assert OUTPUTS.read(SPEC.model_dump(mode="json")) == SPEC


def test_a_graph_of_another_size_is_refused() -> None:
    wrong = SPEC.model_copy(update={"bars": 3})
    with (
        pytest.raises(ManifestError, match="pianoroll"),
        generator(ModelSpec.model_validate({**dict(model()), "output": wrong}), {"composer": composer}) as band,
    ):
        band.sample(1)


def test_drift_counts_notes_that_differ(drawn: Samples) -> None:
    other = drawn.array.copy()
    other[0, 0, 0, 0] = 1 - other[0, 0, 0, 0]
    drift = sample_drift(model(), drawn.array, other)
    assert (drift.flipped, drift.discrete, drift.scaled) == (1, drawn.array.size, 0)
    assert drift.problem(GoldenBounds(graph=1e-4, flipped=0.0)) == ""
    assert "flipped" in sample_drift(model(), drawn.array, 1 - drawn.array).problem(
        GoldenBounds(graph=1e-4, flipped=0.01)
    )


def test_a_format_is_told_in_words() -> None:
    output = output_of(SPEC)
    assert output.of_shape == "piano rolls of 2 bars, 2 tracks"
    assert "2 bars of 4 beats, 2 steps a beat, pitches 48 to 71, 120 beats a minute" in output.facts
    assert "lead (program 73)" in output.facts
    assert RollFormat.model_validate(SPEC.model_dump(exclude={"kind", "value_range"})).seconds_per_step == 0.25


def ended(drawn: Samples, *lengths: int) -> Samples:
    """The same samples, which end early."""
    return replace(drawn, lengths=np.array(lengths, np.int64))


def test_a_piece_that_ends_early_has_as_many_bars_as_it_needs(drawn: Samples, tmp_path: Path) -> None:
    early = ended(drawn, 16, 5, 0)
    assert [piece.format.bars for piece in early.music] == [2, 1, 1]
    assert early.music[0] == drawn.music[0]
    np.testing.assert_array_equal(early.music[1].roll[:, :5], drawn.array[1, :, :5] == 1)
    assert not early.music[1].roll[:, 5:].any()
    assert early.music[2].notes == ()
    assert early[1].music == early.music[1:2]
    with wave.open(str(early.save(tmp_path / "tunes.wav"))) as file:
        seconds = file.getnframes() / file.getframerate()
    assert seconds == pytest.approx(4 + 2 + 2 + 2 * 2, abs=0.3), "two bars, one, one, and a bar between"
    starts = {note.start for note in joined(early.music).notes}
    assert starts == {2, 3 * 8 + 2}, "behind a piece of two bars and a bar of silence"
    assert early.picture().shape[0] == drawn.picture().shape[0]
    with np.load(early.save(tmp_path / "tunes.npz")) as arrays:
        assert arrays["lengths"].tolist() == [16, 5, 0]
        np.testing.assert_array_equal(arrays["array"], drawn.array)


def test_rolls_that_are_given_back(drawn: Samples) -> None:
    output = output_of(SPEC)
    for given in (drawn.array, drawn.array.astype(bool), drawn.array.astype(np.uint8)):
        np.testing.assert_array_equal(output.given(given), drawn.array)
        begun, lengths = output.beginning(given[:, :, :6])
        np.testing.assert_array_equal(begun, drawn.array[:, :, :6])
        assert lengths.tolist() == [6, 6, 6]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 16, 24)), r"as rolls \[n, 2, 16 steps, 24\], got \[2, 16, 24\]"),
        (np.zeros((0, 2, 16, 24)), "got"),
        (np.zeros((1, 2, 15, 24)), r"got \[1, 2, 15, 24\]"),
        (np.full((1, 2, 16, 24), 0.5), "ones, where a note sounds, and zeros, got others"),
        (np.full((1, 2, 16, 24), np.nan), "got others"),
        (np.full((1, 2, 16, 24), 2), "got others"),
        (np.full((1, 2, 16, 24), "x"), "an array of numbers"),
        (None, "expected piano rolls"),
    ],
)
def test_rolls_that_are_none_are_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as failure:
        output_of(SPEC).given(values)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("steps", [0, 16, 17])
def test_beginnings_leave_room(steps: int) -> None:
    with pytest.raises(InputError, match=r"expected prefix as rolls \[n, 2, 1 to 15 steps, 24\]"):
        output_of(SPEC).beginning(np.zeros((1, 2, steps, 24)))


@pytest.mark.parametrize("value", [3, np.float32(1), [], np.zeros((2, 24))])
def test_what_is_no_roll_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="expected prefix as"):
        output_of(SPEC).beginning(value)


def test_what_a_midi_file_says_of_time_is_told_where_the_model_has_another(drawn: Samples, tmp_path: Path) -> None:
    path = tmp_path / "slow.mid"
    form = SPEC.model_copy(update={"tempo": SPEC.tempo / 2})
    path.write_bytes(Music.from_roll(drawn.array[0], form).midi())
    with pytest.warns(GensdkWarning, match="beats a minute, taken as"):
        output_of(SPEC).prefix_of(path, 5)


def test_the_beginning_of_a_midi_file(drawn: Samples, tmp_path: Path) -> None:
    path, output = tmp_path / "tune.mid", output_of(SPEC)
    path.write_bytes(drawn.music[0].midi())
    roll = output.prefix_of(path, 5)
    np.testing.assert_array_equal(roll, drawn.array[:1, :, :5])
    assert output.prefix_of(path, 4).shape == (1, 2, 4, 24)
    strange = PianorollSpec.model_validate(
        {**dict(SPEC), "tracks": (TrackSpec(name="one"), TrackSpec(name="two"))}
    )
    by_order = output_of(strange).prefix_of(path, 5)
    np.testing.assert_array_equal(by_order, roll, "no name is the model's: by their order")
    low = PianorollSpec.model_validate({**dict(SPEC), "lowest_pitch": 0, "pitches": 12})
    with pytest.raises(InputError, match="no note of tracks lead, bass with pitches 0 to 11"):
        output_of(low).prefix_of(path)
    with pytest.raises(InputError, match="has 6 steps, expected 7 or more"):
        output.prefix_of(path, 7)
    with pytest.raises(InputError, match="the steps of a prefix"):
        output.prefix_of(path, 16)
    path.write_bytes(b"MThd")
    with pytest.raises(InputError, match="no MIDI file"):
        output.prefix_of(path)
    with pytest.raises(InputError, match="can't read"):
        output.prefix_of(tmp_path / "missing.mid")
