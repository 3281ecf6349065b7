"""Values and labels of arrays: black and white by all values together, classes by what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.pixel_values import to_pixels
from gensdk_training.data import ArrayDataset, load_data
from gensdk_training.data.arrays import to_labels
from gensdk_training.data.classes import as_classes, plain_names

RNG = np.random.default_rng(4)
LEVELS = RNG.integers(0, 256, (20, 8, 8, 1)).astype(np.float64)


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[7] = value
    return changed


@pytest.mark.parametrize("value", [-1e-4, 1.0001, -0.2, 1.2])
def test_one_value_outside_does_not_change_the_range(value: float) -> None:
    found = to_pixels(with_value(LEVELS / 255, value), "x")
    expected = with_value(LEVELS, 0 if value < 0 else 255)
    np.testing.assert_array_equal(found.images, expected)
    assert "read as 0 (black) to 1 (white); 1 of 1280 values outside were clipped" in found.told


@pytest.mark.parametrize("value", [-1.0001, 1.003])
def test_one_value_outside_does_not_change_the_signed_range(value: float) -> None:
    found = to_pixels(with_value(LEVELS / 127.5 - 1, value), "x")
    np.testing.assert_array_equal(found.images, with_value(LEVELS, 0 if value < 0 else 255))
    assert "read as -1 (black) to 1 (white); 1 of 1280" in found.told


@pytest.mark.parametrize("resample", ["BICUBIC", "LANCZOS"])
@pytest.mark.parametrize("side", [5, 31])
def test_resampled_images_stay_what_they_are(resample: str, side: int) -> None:
    """Hard edges on black, the worst case of overshoot."""
    from PIL import Image

    drawn = (RNG.random((30, 8, 8)) < 0.3).astype(np.float32)
    how = Image.Resampling[resample]
    resized = np.stack([np.asarray(Image.fromarray(image).resize((side, side), how)) for image in drawn])
    assert resized.min() < 0
    found = to_pixels(resized, "x")
    np.testing.assert_array_equal(found.images[..., 0], np.rint(np.clip(resized, 0, 1) * 255))
    assert "clipped" in found.told


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (LEVELS.astype(np.float32), LEVELS),
        (with_value(LEVELS, -3.5), with_value(LEVELS, 0)),
        (LEVELS.astype(np.int64), LEVELS),
        (LEVELS.astype(np.uint16) * 257, LEVELS),
        (LEVELS > 99, (LEVELS > 99) * 255),
        (LEVELS.astype(">f4") / 255, LEVELS),
        (LEVELS.astype(np.float16) / 255, LEVELS),
        (LEVELS / 127.5 - 1, LEVELS),
    ],
)
def test_usual_kinds_of_values_are_read(array: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(to_pixels(array, "x").images, expected)


@pytest.mark.parametrize(
    "array",
    [
        LEVELS / 17,  # floats up to 15
        (LEVELS / 17).astype(np.uint8),
        (LEVELS > 99).astype(np.uint8),
        (LEVELS * 16).astype(np.uint16),  # 12 bits
        LEVELS.astype(np.uint16) * 64,  # 14 bits
        LEVELS.astype(np.int16) - 128,
        LEVELS / 255 / 255,
        LEVELS / 255 * 0.4 - 0.2,  # half below 0, and nowhere near -1
        with_value(LEVELS / 255, -0.9),
        with_value(LEVELS / 255, 200.0),
    ],
)
def test_doubtful_values_are_asked_for(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"can't tell what is meant; say .*--value-range"):
        to_pixels(array, "x")


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
def test_a_given_range_decides(dtype: str) -> None:
    found = to_pixels((LEVELS * 16).astype(dtype), "x", (0.0, 4080.0))
    np.testing.assert_array_equal(found.images, LEVELS)
    inverted = to_pixels(LEVELS.astype(np.uint8), "x", (255.0, 0.0))
    np.testing.assert_array_equal(inverted.images, 255 - LEVELS)
    with pytest.raises(InputError, match="lie outside of 0 to 100"):
        to_pixels(LEVELS.astype(dtype), "x", (0.0, 100.0))


def test_one_image_alone_is_not_a_stack_of_slices() -> None:
    with pytest.raises(InputError, match="may be one image"):
        to_pixels(np.zeros((64, 64, 3), np.uint8), "x")


def saved(tmp_path: Path, **arrays: Any) -> str:
    np.savez(tmp_path / "some.npz", **arrays)
    return str(tmp_path / "some.npz")


def loaded(spec: str, **options: Any) -> ArrayDataset:
    dataset = load_data(spec, **options)
    assert isinstance(dataset, ArrayDataset)
    return dataset


def test_sparse_numbers_are_as_many_classes_as_there_are(tmp_path: Path) -> None:
    years = np.array([2017, 1999, 2017, 999_999])
    data = loaded(saved(tmp_path, images=RNG.integers(0, 256, (4, 5, 5), np.uint8), labels=years))
    assert data.info.class_names == ("1999", "2017", "999999")
    assert list(data.labels) == [1, 0, 1, 2]
    part = loaded(saved(tmp_path, images=data.images[:3], labels=years[:3]), only=("2017",))
    assert part.info.class_names == ("2017",)
    assert list(part.labels) == [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=30))
def test_labels_come_back_by_their_names(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    numbers, names = to_labels(array, len(values), "x")
    assert [names[number] for number in numbers] == [str(value) for value in values]
    assert len(names) == len(set(values))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.5, 1]), "whole numbers or names"),
        (np.array([1e300, 1]), "whole numbers or names"),
        (np.array([np.nan, 1]), "whole numbers or names"),
        (np.array([-1, 1]), "number the classes from 0, or write names"),
        (np.eye(2), "of one-hot labels give the argmax"),
        (np.array([1j, 2]), "whole numbers or names"),
    ],
)
def test_what_is_no_label_is_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_labels(labels, 2, "x")


def test_measurements_are_no_classes() -> None:
    with pytest.raises(InputError, match="2000 different labels for 2000 items are no classes"):
        to_labels(np.arange(2000), 2000, "x")


def test_names_that_models_can_t_carry_are_changed_and_stay_apart() -> None:
    woman, rocket = "\U0001f469", "\U0001f680"
    texts = [
        "a\u00a0b",
        f"{woman}\u200d{rocket}",
        "line\nbreak",
        "caf\udce9",
        "e\u0301",
        "x",
        "x\u200b",
        "\x1b[31m",
    ]
    names, changed = plain_names(texts)
    assert all(name.isprintable() and name for name in names)
    assert len(set(names)) == len(texts)
    assert names[:6] == ("a b", woman + rocket, "line break", "caf\\udce9", "\u00e9", "x")
    assert "e\u0301" not in changed
    assert len(changed) == 6


def test_classes_are_renumbered_by_name(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 5, 5), np.uint8)
    data = loaded(saved(tmp_path, images=images, labels=np.array(["dog", "ant", "dog"])))
    moved = as_classes(data, ("ant", "bee", "dog"))
    assert list(moved.labels) == [2, 0, 2]
    assert moved.info.num_classes == 3
    with pytest.raises(InputError, match="not expected: ant"):
        as_classes(data, ("bee", "dog"))
