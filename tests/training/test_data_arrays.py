"""Data in memory: digits, idx files, .npz files; their shapes, ranges, splits and refusals."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_training.data import ArrayDataset, load_data
from gensdk_training.data.feed import Feed
from gensdk_training.data.order import DataOrder, permutation

RNG = np.random.default_rng(0)


def loaded(spec: str, **options: Any) -> ArrayDataset:
    dataset = load_data(spec, **options)
    assert isinstance(dataset, ArrayDataset)
    return dataset


def test_digits_are_the_sources_levels_in_two_fixed_disjoint_parts() -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    train, test = loaded("digits"), loaded("digits", split="test")
    assert (len(train), len(test)) == (1438, 359)
    assert train.info.num_classes == 10
    assert train.info.class_names == tuple("0123456789")
    assert train.images.shape == (1438, 8, 8, 1)
    both = np.concatenate([train.images, test.images])[..., 0]
    expected = np.rint(source.images * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, expected))
    assert len(np.unique(both)) == 17
    assert sorted(np.concatenate([train.labels, test.labels])) == sorted(source.target)
    assert loaded("digits").fingerprint == train.fingerprint != test.fingerprint


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(0, 200),
    pieces=st.lists(st.integers(1, 60), min_size=1, max_size=5),
)
def test_the_order_is_one_stream_of_permutations(count: int, seed: int, first: int, pieces: list[int]) -> None:
    order = DataOrder(count, seed)
    whole = order.indices(first, sum(pieces))
    parts, at = [], first
    for piece in pieces:
        parts.append(DataOrder(count, seed).indices(at, piece))
        at += piece
    assert np.array_equal(whole, np.concatenate(parts))
    epoch = order.indices(3 * count, count)
    assert sorted(epoch) == list(range(count))
    assert np.array_equal(epoch, permutation(count, seed, 3))


def test_batches_are_float_images_in_minus_one_to_one() -> None:
    dataset = loaded("digits")
    feed = Feed(dataset, seed=5, batch_size=7, device=torch.device("cpu"))
    batch = feed.batch(3)
    indices = DataOrder(len(dataset), 5).indices(21, 7)
    assert batch.images.shape == (7, 1, 8, 8)
    assert batch.images.dtype == torch.float32
    expected = dataset.images[indices].transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(batch.images.numpy(), expected, atol=1e-6)
    assert batch.labels is not None
    assert np.array_equal(batch.labels.numpy(), dataset.labels[indices])


def images(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (images(5, 4, 6, 3), (4, 6, 3)),
        (images(5, 3, 4, 6), (4, 6, 3)),
        (images(5, 4, 6), (4, 6, 1)),
        (images(5, 1, 4, 6), (4, 6, 1)),
        (images(5, 4, 6, 4), (4, 6, 4)),
    ],
)
def test_npz_layouts(array: np.ndarray, expected: tuple[int, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", images=array)
    dataset = loaded(str(tmp_path / "some.npz"))
    info = dataset.info
    assert (info.height, info.width, info.channels) == expected
    nhwc = array if array.ndim == 4 and array.shape[3] == expected[2] else array.reshape(5, -1, 4, 6)
    nhwc = nhwc if nhwc.shape[1:] == expected else np.moveaxis(nhwc, 1, 3)
    assert np.array_equal(dataset.images, nhwc)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("signed", [False, True])
def test_npz_floats_round_to_the_nearest_level(dtype: Any, signed: bool, tmp_path: Path) -> None:
    levels = np.concatenate([[0, 255], images(62)]).reshape(2, 4, 8).astype(np.float64)
    scaled = levels / 127.5 - 1 if signed else levels / 255
    np.savez_compressed(tmp_path / "some.npz", scaled.astype(dtype), np.array(["b", "a"]))
    dataset = loaded(str(tmp_path / "some.npz"))
    assert np.array_equal(dataset.images[..., 0], levels)
    assert dataset.info.class_names == ("a", "b")
    assert list(dataset.labels) == [1, 0]


def test_npz_keys_splits_and_options(tmp_path: Path) -> None:
    path = tmp_path / "keras set.npz"
    np.savez(
        path, x_train=images(8, 6, 6), y_train=np.arange(8) % 3, x_test=images(4, 6, 6), y_test=np.arange(4) % 3
    )
    train, test = loaded(str(path)), loaded(str(path), split="test")
    assert (len(train), len(test)) == (8, 4)
    assert train.info.name == "keras-set"
    assert train.info.num_classes == 3
    assert loaded(str(path), labels="none").info.num_classes is None
    chosen = loaded(f"{path}:x_test", labels="y_test", size=3, channels=3)
    assert chosen.images.shape == (4, 3, 3, 3)
    held = [
        len(loaded(f"{path}:x_train", labels="none", holdout=0.25, split=split)) for split in ("train", "test")
    ]
    assert held == [6, 2]


@pytest.mark.parametrize(
    ("arrays", "spec", "message"),
    [
        ({"images": np.zeros((3, 4, 4), np.int32)}, "", "expected uint8 or float images, got int32"),
        ({"images": np.array([[[0.0, np.nan]]])}, "", "NaN or infinite"),
        ({"images": np.full((1, 2, 2), np.inf)}, "", "NaN or infinite"),
        ({"images": np.full((1, 2, 2), 7.0)}, "", r"in \[0, 1\] or \[-1, 1\], got \[7, 7\]"),
        ({"images": images(3, 2, 4, 5)}, "", "1, 3 or 4 channels"),
        ({"images": images(4, 4)}, "", "NHWC, NCHW or NHW"),
        ({"images": images(0, 4, 4)}, "", "NHWC, NCHW or NHW"),
        ({"images": images(3, 4, 4), "labels": np.arange(4)}, "", "expected 3 labels"),
        ({"images": images(3, 4, 4), "labels": np.array([0, 1, -1])}, "", "number the classes from 0"),
        ({"images": images(3, 4, 4), "labels": np.array([0.5, 1, 2])}, "", "whole numbers or names"),
        ({"pictures": images(3, 4, 4)}, "", "write FILE.npz:KEY"),
        ({"pictures": images(3, 4, 4)}, ":photos", "no array 'photos'; it has pictures"),
        ({"images": np.array([{"a": 1}], dtype=object)}, "", "not a whole .npz file of plain arrays"),
    ],
)
def test_npz_refusals(arrays: dict[str, np.ndarray], spec: str, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_data(f"{tmp_path / 'some.npz'}{spec}")


@pytest.mark.parametrize("keep", [0, 1, 30, 200, -1])
def test_a_cut_npz_is_refused(keep: int, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "some.npz", images=images(3, 16, 16))
    whole = (tmp_path / "some.npz").read_bytes()
    (tmp_path / "some.npz").write_bytes(whole[:keep])
    with pytest.raises(InputError, match=r"not a whole .npz"):
        load_data(str(tmp_path / "some.npz"))


def test_a_flipped_byte_in_an_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", images=images(3, 16, 16))
    data = bytearray((tmp_path / "some.npz").read_bytes())
    data[400] ^= 1
    (tmp_path / "some.npz").write_bytes(data)
    with pytest.raises(InputError, match=r"not a whole .npz"):
        load_data(str(tmp_path / "some.npz"))


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, count in (("train", 12), ("t10k", 5)):
        pictures, labels = images(count, 28, 28), np.arange(count, dtype=np.uint8) % 10
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def test_mnist_from_idx_files(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = loaded(f"mnist:{mnist}")
    assert named.images.shape == (12, 28, 28, 1)
    assert named.info.num_classes == 10
    assert len(loaded("mnist", split="test", data_dir=mnist.parent)) == 5
    monkeypatch.setenv("GENSDK_DATA_DIR", str(mnist))
    assert loaded("mnist").fingerprint == named.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "its header says 12x28x28"),
        (lambda data: data + b"x", "its header says 12x28x28"),
        (lambda data: data[:9], "its header says"),
        (lambda data: b"", "not an idx file"),
        (lambda data: b"\0\0\x0d" + data[3:], "expected unsigned bytes with 3 axes"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "its header says"),
        (lambda data: gzip.compress(data)[:-20], "can't be read"),
    ],
)
def test_idx_refusals(mnist: Path, change: Any, message: str) -> None:
    path = mnist / "train-images-idx3-ubyte.gz"
    path.write_bytes(change(gzip.decompress(path.read_bytes())))
    with pytest.raises(InputError, match=message):
        load_data(f"mnist:{mnist}")


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("digit", {}, "no data 'digit'; did you mean 'digits'"),
        ("nowhere/at/all", {}, "no such file or folder, and the names are digits, mnist"),
        ("mnist", {}, "Write mnist:FOLDER"),
        ("mnist:nowhere", {}, "no train-images-idx3-ubyte"),
        ("digits", {"holdout": 0.5}, "own test split"),
        ("digits", {"holdout": 1.5}, "holdout"),
        ("digits", {"split": "val"}, "'train' or 'test'"),
        ("digits", {"channels": 2}, "channels 1, 3 or 4"),
        ("digits", {"size": 0}, "size of 1"),
        ("digits", {"fit": "squash"}, "'crop' or 'stretch'"),
        (__file__, {}, r"expected a folder, an .npz, .npy, .csv, .mid, .json or .tar.gz file"),
    ],
)
def test_wrong_requests_are_told(
    spec: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENSDK_DATA_DIR", raising=False)
    with pytest.raises(InputError, match=message):
        load_data(spec, **options)
