"""Digits with captions, for families that make images from texts."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from gensdk_training.data.dataset import ArrayDataset
from gensdk_training.data.load import load_data

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HOLDOUT = 0.2


def caption(digit: int, images: np.ndarray, place: int) -> str:
    """How thick a digit is, and which one: "a bold seven"."""
    ink = float(images[place].mean())
    return f"a {'light' if ink < 70 else 'plain' if ink < 80 else 'bold'} {NAMES[digit]}"


@functools.cache
def captioned_digits_file() -> Path:
    """400 digits as `images`, their `labels` and their `captions`, 30 different ones."""
    data = load_data("digits")
    assert isinstance(data, ArrayDataset)
    assert data.labels is not None
    images, labels = data.images[:400], data.labels[:400]
    captions = [caption(digit, images, place) for place, digit in enumerate(labels.tolist())]
    path = Path(tempfile.mkdtemp(prefix="gensdk-captions-")) / "digits.npz"
    np.savez(path, images=images, labels=labels, captions=np.array(captions), allow_pickle=False)
    return path


@functools.cache
def captioned_digits() -> ArrayDataset:
    """All of them."""
    data = load_data(str(captioned_digits_file()), captions="captions")
    assert isinstance(data, ArrayDataset)
    return data
