"""GIFs come back exact where they can, videos have every frame, and what can't be written leaves nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.gif import encode_gif
from gensdk_runtime.media.image_frames import frames as frames_of
from gensdk_runtime.stream.animation import MAX_FPS, MIN_FPS, save_animation


def _read(gif: bytes) -> tuple[list[Any], list[float]]:
    """Frames [H, W, 3] in RGB and how long each is shown, in milliseconds."""
    found = list(frames_of(gif, 3))
    return [frame.image for frame in found], [frame.duration for frame in found]


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (97, 61), (120, 130)])
@pytest.mark.parametrize("levels", [2, 256])
def test_grey_frames_come_back_exactly(size: tuple[int, int], levels: int) -> None:
    frames = np.random.default_rng(0).integers(0, levels, (3, *size, 1), dtype=np.uint8)
    found, durations = _read(encode_gif(frames, fps=10))
    assert durations == [100, 100, 100]
    for expected, frame in zip(frames, found, strict=True):
        np.testing.assert_array_equal(frame, expected.repeat(3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_frames_stay_frames_of_their_own_and_it_plays_for_ever(channels: int) -> None:
    from PIL import Image

    gif = encode_gif(np.full((3, 8, 8, channels), 7, np.uint8), fps=20)
    assert _read(gif)[1] == [50, 50, 50]
    with Image.open(io.BytesIO(gif)) as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize("fps", [MIN_FPS, 0.3, 12, 33, 50, MAX_FPS])
@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_every_rate_that_is_allowed_can_be_written(suffix: str, fps: float, tmp_path: Path) -> None:
    path = save_animation(FRAMES, tmp_path / f"walk{suffix}", fps=fps)
    assert path.stat().st_size
    if suffix == ".gif":
        _, durations = _read(path.read_bytes())
        assert durations == pytest.approx([max(20, 1000 / fps)] * 2, abs=5)


def test_few_colours_are_exact_and_many_come_near() -> None:
    few = np.random.default_rng(0).integers(0, 6, (2, 40, 30, 3), dtype=np.uint8) * 50
    for expected, frame in zip(few, _read(encode_gif(few, fps=50))[0], strict=True):
        np.testing.assert_array_equal(frame, expected)
    rows, columns = np.mgrid[0:128, 0:128]
    many = np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    (found,), _ = _read(encode_gif(many[None], fps=1))
    assert np.abs(found.astype(int) - many).mean() < 6


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_video_has_every_frame(suffix: str, channels: int, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 8, 8, channels), dtype=np.uint8)
    path = save_animation(frames, tmp_path / f"new/walk{suffix}", fps=8)
    video = cv2.VideoCapture(str(path))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 7
    assert video.get(cv2.CAP_PROP_FPS) == 8
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (48, 48)
    video.release()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


FRAMES = np.zeros((2, 8, 8, 1), np.uint8)


@pytest.mark.parametrize(
    ("name", "frames", "options", "match"),
    [
        ("x.png", FRAMES, {}, "use one of .gif, .mp4, .avi"),
        ("x", FRAMES, {}, "can't write that"),
        ("x.gif", FRAMES, {"fps": 0.0}, "fps from 0.01 to 120"),
        ("x.gif", FRAMES, {"fps": 0.0099}, "fps from 0.01 to 120"),
        ("x.gif", FRAMES, {"scale": -1}, "scale from 1"),
        ("x.gif", FRAMES, {"scale": 1.5}, "scale as an int"),
        ("x.mp4", FRAMES, {"fps": float("nan")}, "fps from 0.01"),
        ("x.gif", np.zeros((2, 8, 8, 4), np.uint8), {}, "1 or 3"),
        ("x.gif", np.zeros((0, 8, 8, 1), np.uint8), {}, "expected frames"),
        ("x.gif", FRAMES, {"scale": 10_000}, "pixels in all frames"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    name: str, frames: Any, options: dict[str, Any], match: str, tmp_path: Path
) -> None:
    (tmp_path / "old.gif").write_bytes(b"old")
    with pytest.raises(InputError, match=match):
        save_animation(frames, tmp_path / name, **options)
    assert [each.name for each in tmp_path.iterdir()] == ["old.gif"]


def test_a_failure_half_way_leaves_the_old_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gensdk_runtime.media.video.film import Film

    path = save_animation(FRAMES, tmp_path / "walk.mp4")
    before = path.read_bytes()
    monkeypatch.setattr(Film, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save_animation(np.repeat(FRAMES, 9, axis=0), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["walk.mp4"]


def test_a_full_disk_half_way_leaves_the_old_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gensdk_runtime.media.video import film_file

    path = save_animation(FRAMES, tmp_path / "walk.mp4")
    before = path.read_bytes()

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(film_file.os, "write", full)
    with pytest.raises(InputError, match="No space left"):
        save_animation(np.repeat(FRAMES, 9, axis=0), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["walk.mp4"]
