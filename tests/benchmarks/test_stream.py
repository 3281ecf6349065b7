"""The stream benchmark: its moving picture, its camera, and a whole small run."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from stream import Camera, main, moving_picture

from gensdk_runtime.media.images import encode_image
from support.inverting_bundle import write_inverting_bundle


def photos(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (300, 400, 3), dtype=np.uint8) for _ in range(count)]


def test_the_picture_moves_all_the_time() -> None:
    frames = moving_picture(photos(2), 10)
    assert (frames.shape, frames.dtype) == ((10, 256, 256, 3), np.uint8)
    assert all((one != other).any() for one, other in pairwise(frames))


def test_who_is_late_misses_frames_of_the_camera() -> None:
    frames = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1).repeat(3, axis=3)
    capture = Camera(frames, 0.001).open()
    assert capture.live
    first = capture.read()
    time.sleep(0.02)
    second = capture.read()
    assert first is not None
    assert second is not None
    assert second.max() >= first.max() + 20


def test_a_whole_run(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i, photo in enumerate(photos(2)):
        (tmp_path / "photos" / f"{i}.png").write_bytes(encode_image(photo, ".png", {}))
    bundle = write_inverting_bundle(tmp_path / "negative.gsdk")
    options = ["--images", tmp_path / "photos", "--threads", 1, "--frames", 8, "--rounds", 2, "--seconds", 0.3]
    result = CliRunner().invoke(main, [str(bundle), *map(str, options), "--json"])
    assert result.exit_code in (0, 1), result.output  # by the verdicts, which so few frames can't tell
    figures = json.loads(result.stdout)
    assert [each["group"] for each in figures] == ["stream", "stream", "live"]
    assert all(each["value"] > 0 for each in figures)
