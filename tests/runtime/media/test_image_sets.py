"""Pictures for a model: folders, files and arrays come to its size and values as its training did it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.gif import encode_gif
from gensdk_runtime.media.image_pixels import fit_size
from gensdk_runtime.media.image_sets import Shaping, load_image, load_images
from gensdk_runtime.spec.signature import ImageSpec
from gensdk_training.data import ArrayDataset, load_data
from support.image_bytes import png
from support.image_folders import numbers, write_image, write_images

SPEC = ImageSpec(channels=1, height=8, width=8)


def test_folders_are_read_with_all_in_them_and_broken_files_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["b.png", "deep/er/a.png", "deep/c.png"], (8, 8))
    (tmp_path / "deep" / "broken.png").write_bytes(b"no image")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "note.txt").write_bytes(b"x")
    found = load_images(tmp_path, SPEC)
    assert found.names == ["b.png", "deep/c.png", "deep/er/a.png"]
    assert numbers(found.images) == [0, 2, 1]
    assert sorted(name for name, _ in found.skipped) == ["deep/broken.png", "gone.png"]
    assert found.left_out == 1
    with pytest.raises(InputError, match=r"broken.png: .*; remove it"):
        load_images(tmp_path / "deep" / "broken.png", SPEC)


def test_other_sizes_are_refused_unless_training_had_them(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 5, (20, 12))
    with pytest.raises(InputError, match="expected 8x8 pixels, got 12x20; resize it, or say --size 8x8"):
        load_images(tmp_path, SPEC)
    assert load_images(tmp_path, SPEC, Shaping(fit="crop")).images.shape == (1, 8, 8, 1)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_those_of_training(fit: Any, channels: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    floats = random.random((5, 20, 12, 3)).astype(np.float32)
    floats[0, 0, 0, 0] = -1e-3
    np.savez(tmp_path / "some.npz", pictures=floats, images=floats)
    spec = ImageSpec(channels=channels, height=8, width=8)
    for source in (f"{tmp_path / 'some.npz'}", f"{tmp_path / 'some.npz'}:pictures"):
        trained = load_data(source, size=8, channels=channels, fit=fit, labels="none")
        assert isinstance(trained, ArrayDataset)
        found = load_images(source, spec, Shaping(fit=fit))
        np.testing.assert_array_equal(found.images, trained.images)
    np.save(tmp_path / "some.npy", floats)
    np.testing.assert_array_equal(load_images(tmp_path / "some.npy", spec, Shaping(fit=fit)).images, found.images)


def test_files_are_those_of_training(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/0.png", "a/1.bmp", "2.png"], (13, 9))
    trained = load_data(str(tmp_path), size=8, channels=1, labels="none")
    assert isinstance(trained, ArrayDataset)
    found = load_images(tmp_path, SPEC, Shaping(fit="crop"))
    np.testing.assert_array_equal(found.images, trained.images)
    image = np.arange(13 * 9, dtype=np.uint8).reshape(13, 9, 1)
    assert fit_size(image, (8, 8), "crop").shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 8, 8), np.uint8)}, "no array 'images' in it; it has 'pictures'"),
        ({"images": np.full((2, 8, 8), np.nan)}, "NaN or infinite"),
        ({"images": np.full((2, 8, 8), 7.0)}, "can't tell what is meant"),
        ({"images": np.array([{"a": 1}], dtype=object)}, "Python objects"),
        ({"images": np.zeros((2, 9, 8), np.uint8)}, "expected 8x8 pixels"),
    ],
)
def test_arrays_that_are_no_such_pictures_are_refused(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_images(tmp_path / "some.npz", SPEC)


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
