"""Folders of images: classes, sizes, corrupt files, lazy reading."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_runtime.media.gif import encode_gif
from gensdk_runtime.media.image_files import CorruptImageError, decode, read_header
from gensdk_runtime.media.image_pixels import fit_size, to_channels
from gensdk_runtime.media.images import encode_image
from gensdk_training.data import ArrayDataset, load_data
from gensdk_training.data.feed import Feed
from gensdk_training.data.folder_dataset import FolderDataset
from support.image_bytes import exif, png, tiff

RNG = np.random.default_rng(1)


def picture(height: int = 8, width: int = 6, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return encode_image(image, suffix, {})


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    pictures = [picture() for _ in range(9)]
    for index, image in enumerate(pictures):
        path = tmp_path / "photos" / ("cat" if index < 5 else "dog") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image))
    return tmp_path / "photos", pictures


def test_sub_folders_are_classes(folder: tuple[Path, list[np.ndarray]]) -> None:
    root, pictures = folder
    dataset = load_data(str(root))
    assert isinstance(dataset, ArrayDataset)
    assert dataset.info.class_names == ("cat", "dog")
    assert dataset.info.name == "photos"
    assert list(dataset.labels) == [0] * 5 + [1] * 4
    assert np.array_equal(dataset.images, np.stack(pictures))
    assert load_data(str(root), labels="none").info.num_classes is None
    parts = [len(load_data(str(root), holdout=0.34, split=split)) for split in ("train", "test")]
    assert parts == [6, 3]


@pytest.mark.parametrize("only", [("dog",), ("1",), ("dog", "cat"), ("0", "1", "dog")])
@pytest.mark.parametrize("memory_limit", [0, 1 << 20])
def test_classes_are_chosen_by_name_or_number_and_are_all_there_are(
    folder: tuple[Path, list[np.ndarray]], only: tuple[str, ...], memory_limit: int
) -> None:
    root, pictures = folder
    dataset = load_data(str(root), only=only, memory_limit=memory_limit)
    whole = load_data(str(root))
    first = 5 if len(set(only)) == 1 else 0
    part = dataset.batch(np.arange(len(dataset)))
    assert np.array_equal(part.images, np.stack(pictures[first:]))
    assert part.labels is not None
    assert list(part.labels) == ([0] * 4 if first else [0] * 5 + [1] * 4)
    names = ("dog",) if first else ("cat", "dog")
    kept = {"count": 9 - first, "class_names": names, "num_classes": len(names)}
    assert dataset.info == whole.info.model_copy(update=kept)
    assert dataset.fingerprint != whole.fingerprint or (first == 0 and memory_limit > 0)
    dataset.close()


def test_classes_that_are_not_there_are_told(folder: tuple[Path, list[np.ndarray]]) -> None:
    root = str(folder[0])
    for options, message in (
        ({"only": ("dogs",)}, "did you mean 'dog'"),
        ({"only": ("2",)}, "no class '2'"),
        ({"only": ("dog",), "labels": "none"}, "no labels to choose classes by"),
        ({"only": ("dog",), "inputs": root}, "leave one of them out"),
    ):
        with pytest.raises(InputError, match=message):
            load_data(root, **options)


def test_a_large_folder_is_read_along_the_way_with_the_same_result(folder: tuple[Path, list[np.ndarray]]) -> None:
    at_once, lazy = load_data(str(folder[0])), load_data(str(folder[0]), memory_limit=0)
    assert isinstance(lazy, FolderDataset)
    assert lazy.info == at_once.info
    assert lazy.fingerprint == at_once.fingerprint or isinstance(at_once, ArrayDataset)
    indices = np.array([8, 0, 0, 3])
    assert np.array_equal(lazy.batch(indices).images, at_once.batch(indices).images)
    assert np.array_equal(lazy.batch(indices).labels, at_once.batch(indices).labels)
    feeds = [Feed(data, seed=1, batch_size=4, device=torch.device("cpu")) for data in (at_once, lazy)]
    for number in (0, 1, 2, 7, 3):
        batches = [feed.batch(number) for feed in feeds]
        assert torch.equal(batches[0].images, batches[1].images)
    for feed in feeds:
        feed.close()
    lazy.close()


def test_corrupt_files_are_named_counted_and_left_out(
    folder: tuple[Path, list[np.ndarray]], caplog: pytest.LogCaptureFixture
) -> None:
    root, pictures = folder
    whole = (root / "cat" / "1.png").read_bytes()
    (root / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "6.png").write_bytes(b"")
    (root / "dog" / "7.png").write_bytes(b"<html>not found</html>")
    dataset = load_data(str(root))
    assert isinstance(dataset, ArrayDataset)
    assert dataset.skipped.count == 3
    assert len(dataset) == dataset.info.count == 6
    assert np.array_equal(dataset.images, np.stack([pictures[i] for i in (0, 2, 3, 4, 5, 8)]))
    assert list(dataset.labels) == [0, 0, 0, 0, 1, 1]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    for name in ("1.png", "6.png", "7.png"):
        assert sum(name in line for line in told) == 1


def test_a_file_that_turns_corrupt_later_is_replaced_by_the_next_good_one(
    folder: tuple[Path, list[np.ndarray]], caplog: pytest.LogCaptureFixture
) -> None:
    root, pictures = folder
    dataset = load_data(str(root), memory_limit=0)
    (root / "cat" / "3.png").write_bytes(b"gone")
    (root / "cat" / "4.png").unlink()
    for _ in range(3):
        batch = dataset.batch(np.array([3, 4, 5, 0]))
        assert np.array_equal(batch.images, np.stack([pictures[i] for i in (5, 5, 5, 0)]))
        assert list(batch.labels) == [1, 1, 1, 0]
    assert dataset.skipped.count == 2
    assert len(caplog.records) == 2
    for path in root.rglob("*.png"):
        path.write_bytes(b"gone")
    with pytest.raises(TrainingError, match="no image of 'photos' can be read any more"):
        dataset.batch(np.array([0]))
    dataset.close()


def test_sizes_channels_and_transparency(tmp_path: Path) -> None:
    clear = picture(4, 4, 4)
    clear[..., 3] = 0
    (tmp_path / "a.png").write_bytes(encoded(clear))
    (tmp_path / "b.png").write_bytes(encoded(picture(12, 10, 1)))
    dataset = load_data(str(tmp_path), size=(6, 5))
    assert isinstance(dataset, ArrayDataset)
    assert dataset.images.shape == (2, 6, 5, 3)
    assert (dataset.images[0] == 255).all()
    assert load_data(str(tmp_path), size=4, channels=1).info.channels == 1
    (tmp_path / "a.png").unlink()
    assert load_data(str(tmp_path)).info.channels == 1


def test_own_splits(folder: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
    folder[0].joinpath("cat").rename(tmp_path / "set" / "train" / "cat")
    folder[0].joinpath("dog").rename(tmp_path / "set" / "test" / "dog")
    counts = [len(load_data(str(tmp_path / "set"), split=split)) for split in ("train", "test")]
    assert counts == [5, 4]


def png_header(height: int, width: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    begin = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return begin + struct.pack(">I", 8) + b"IDAT"


def test_refusals_come_before_training(folder: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    root = folder[0]
    (root / "dog" / "bomb.png").write_bytes(png_header(60_000, 60_000))
    with pytest.raises(InputError, match=r"bomb.png: 60000x60000 is more than"):
        load_data(str(root))
    (root / "dog" / "bomb.png").write_bytes(encoded(picture(9, 9)))
    with pytest.raises(InputError, match=r"images differ in size: 0.png is 6x8, bomb.png 9x9; give a size"):
        load_data(str(root))
    (root / "dog" / "bomb.png").rename(root / "stray.png")
    with pytest.raises(InputError, match=r"'stray.png' lies beside the class folders"):
        load_data(str(root))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no .png, .*file in folder"):
        load_data(str(tmp_path / "empty"))
    (tmp_path / "empty" / "one.jpg").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match="none of the 1 image files"):
        load_data(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [
        *((suffix, channels) for suffix in (".png", ".webp") for channels in (1, 3, 4)),
        *((suffix, channels) for suffix in (".jpg", ".bmp") for channels in (1, 3)),
    ],
)
def test_headers_say_what_the_decoder_finds(suffix: str, channels: int) -> None:
    image = picture(37, 53, channels)
    data = encoded(image, suffix)
    header = read_header(data)
    assert (header.height, header.width) == (37, 53)
    assert header.alpha == (channels == 4)
    found = decode(data, channels)
    assert found.shape == (37, 53, channels)
    if suffix in (".png", ".bmp"):
        assert np.array_equal(found, image)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_no_cut_file_passes_as_whole(suffix: str) -> None:
    data = encoded(picture(24, 24), suffix)
    assert decode(data, 3).shape == (24, 24, 3)
    for keep in range(0, len(data) - 1, max(1, len(data) // 40)):
        with pytest.raises(CorruptImageError):
            decode(data[:keep], 3)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_bytes_never_raise_anything_else(seed: int) -> None:
    damage = np.random.default_rng(seed)
    for suffix in (".png", ".jpg", ".bmp", ".webp"):
        data = np.frombuffer(encoded(picture(16, 16), suffix), np.uint8).copy()
        data[damage.integers(0, len(data), 8)] = damage.integers(0, 256, 8)
        shape = (0, 0, 3)
        with contextlib.suppress(CorruptImageError):
            shape = decode(data.tobytes(), 3).shape
        assert shape[2] == 3


def test_fitting_cuts_from_the_centre_or_stretches() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert (fit_size(image, (5, 5), "crop") == 200).all()
    stretched = fit_size(image, (10, 15), "stretch")
    assert stretched[5, 0, 0] == 0
    assert stretched[5, 7, 0] == 200
    assert to_channels(image, 1).shape == (10, 30, 1)
    assert to_channels(image, 4)[..., 3].min() == 255


def test_twelve_bits_in_files_of_sixteen_are_asked_for(tmp_path: Path) -> None:
    samples = RNG.integers(0, 4096, (4, 8, 6, 1)).astype(np.uint16)
    samples[:, 0, 0] = 4095
    for number, image in enumerate(samples):
        (tmp_path / f"{number}.png").write_bytes(png(image, bits=16))
    with pytest.raises(InputError, match=r"none of the 4 images .* as those of 12 bits do; say .*--depth"):
        load_data(str(tmp_path))
    loaded = load_data(str(tmp_path), depth=12)
    assert isinstance(loaded, ArrayDataset)
    assert np.abs(loaded.images - np.rint(samples * (255 / 4095))).max() <= 1
    lazy = load_data(str(tmp_path), depth=12, memory_limit=0)
    assert np.array_equal(lazy.batch(np.arange(4)).images, loaded.images)
    lazy.close()
    dark = load_data(str(tmp_path), depth=16)
    assert isinstance(dark, ArrayDataset)
    assert dark.images.max() == 15
    with pytest.raises(InputError, match="8 to 16 bits, got 3"):
        load_data(str(tmp_path), depth=3)


def test_photographs_that_lie_on_their_side_need_no_size(tmp_path: Path) -> None:
    """Stored 8x6 with a tag, or upright 6x8: all are shown 6 wide and 8 high, in every format."""
    upright = picture(8, 6)
    sideways = np.ascontiguousarray(upright.transpose(1, 0, 2)[::-1])
    (tmp_path / "a.png").write_bytes(png(upright))
    (tmp_path / "b.png").write_bytes(png(sideways, before=((b"eXIf", exif(6)),)))
    (tmp_path / "c.tiff").write_bytes(tiff(sideways, orientation=6))
    (tmp_path / "d.webp").write_bytes(encode_image(upright, ".webp", {}))
    (tmp_path / "e.gif").write_bytes(encode_gif(np.stack([upright, upright]), fps=10))
    late = (b"tEXt", bytes(100_000)), (b"eXIf", exif(6))
    (tmp_path / "f.apng").write_bytes(png(sideways, after=late))
    dataset = load_data(str(tmp_path))
    assert isinstance(dataset, ArrayDataset)
    assert dataset.skipped.count == 0
    assert np.array_equal(dataset.images, np.stack([upright] * 6))
    assert "the first picture is taken of files that hold several: 1" in dataset.findings.notes
