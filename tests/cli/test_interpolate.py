"""``gensdk interpolate``: grids, GIFs, videos and arrays, along seeds and axes; errors in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gensdk.cli.main import run
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_frames import frames as frames_of

NAME = "digits-vae"


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(["interpolate", NAME, "--backend", "onnxruntime", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_walk_ends_at_the_samples_of_its_seeds(tmp_path: Path, capsys: Any) -> None:
    code, out, _ = outcome(capsys, "--from", 3, "--to", "0:9", "-n", 7, "-o", tmp_path / "walk.npz")
    assert code == 0
    assert out.startswith("7 samples of digits-vae through 2 seeds")
    with np.load(tmp_path / "walk.npz") as walk, Generator.load(NAME, backend="onnxruntime") as generator:
        ends = generator.sample(2, seed=[3, (0, 9)])
        np.testing.assert_allclose(walk["array"][[0, -1]], ends.array, atol=1e-5)
        np.testing.assert_array_equal(walk["labels"][[0, -1]], ends.labels)


@pytest.mark.parametrize(
    ("arguments", "frames"),
    [
        (("--seeds", "3,4,5", "-n", 4), 7),
        (("--seeds", "3,4,5", "-n", 4, "--loop"), 9),
        (("--from", 3, "--traverse", 5, "-n", 6), 6),
    ],
)
def test_every_way_has_its_frames_in_every_form(
    arguments: tuple[Any, ...], frames: int, tmp_path: Path, capsys: Any
) -> None:
    for name in ("walk.png", "walk.gif", "walk.mp4", "walk"):
        code, _, error = outcome(capsys, *arguments, "--label", 7, "--fps", 20, "-o", tmp_path / name)
        assert (code, error) == (0, "")
    shown = [frame.duration for frame in frames_of((tmp_path / "walk.gif").read_bytes(), 3)]
    assert shown == [50] * frames
    assert int(cv2.VideoCapture(str(tmp_path / "walk.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == frames
    assert len(list((tmp_path / "walk").iterdir())) == frames
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk", "walk.gif", "walk.mp4", "walk.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 5, "expected --from and --to"),
        (("--from", 3), 5, "expected --from and --to"),
        (("--from", 3, "--to", 4, "--seeds", "1,2"), 5, "got both"),
        (("--seeds", 3), 5, "at least two points"),
        (("--from", "x", "--to", 4), 5, "expected a seed"),
        (("--traverse", 3), 5, "give it with --from"),
        (("--from", 3, "--traverse", 16), 5, "axis from 0 to 15"),
        (("--from", 3, "--traverse", 1, "--low", 2, "--high", 1), 5, "low below high"),
        (("--from", 3, "--to", 4, "--low", 2), 5, "go with --traverse"),
        (("--from", 3, "--to", 4, "-n", 1), 5, "n of at least 2"),
        (("--from", 3, "--to", 4, "-o", "x.gif", "--fps", 0), 5, "fps from 0.01"),
        (("--from", 3, "--to", 4, "-o", "x.webm"), 5, "can't write .webm"),
        (("--from", 3, "--to", 4, "-o", "/dev/null/x.gif"), 5, "is a file, not a folder"),
        (("--from", 3, "--to", 4, "--label", "eleven"), 5, "no class 'eleven'"),
        (("--from", 3, "--to", 4, "--steps", 5), 5, "num_inference_steps means nothing"),
        (("--from", 3, "--to", 4, "--method", "cubic"), 2, "'slerp'"),
    ],
)
def test_errors_are_one_line(arguments: tuple[Any, ...], code: int, message: str, capsys: Any) -> None:
    found, _, error = outcome(capsys, *arguments)
    assert found == code
    assert message in error
    assert code == 2 or error.count("\n") == 1
