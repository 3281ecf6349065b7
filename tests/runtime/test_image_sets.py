"""Image files that are read by name: what is told of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.gif import encode_gif
from gensdk_runtime.media.image_sets import load_image
from support.image_bytes import png


def test_the_first_of_several_pictures_is_taken_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(6, 1).repeat(7, 2) + np.uint8(40)
    (tmp_path / "moving.gif").write_bytes(encode_gif(frames, fps=10))
    (tmp_path / "still.gif").write_bytes(encode_gif(frames[:1], fps=10))
    for name in ("moving.gif", "still.gif"):
        assert (load_image(tmp_path / name, 1) == 40).all()
    (told,) = [record.getMessage() for record in caplog.records]
    assert "moving.gif' holds several pictures; the first is taken" in told


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no PNG, JPEG, BMP, WebP, TIFF or GIF file; remove it"),
        (png(np.zeros((4, 4, 1), np.uint8))[:-20], "remove it"),
        (png(np.full((4, 4, 1), 900, np.uint16), bits=16), "as those of 10 bits do"),
    ],
)
def test_others_are_refused_by_name(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(InputError, match=rf"x\.png: .*{reason}"):
        load_image(tmp_path / "x.png", 3)
    with pytest.raises(InputError, match=r"can't read .*none\.png"):
        load_image(tmp_path / "none.png", 3)
