"""Digits with captions, for families that make images from texts."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from gensdk_training.data.dataset import ArrayDataset, Images
from gensdk_training.data.load import load_data

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HOLDOUT = 0.2


def caption(digit: int, image: Images) -> str:
    """How thick and how wide a digit is, and which one: "a bold wide seven"."""
    ink = float(image.mean())
    wide = float(image[:, :2].mean() + image[:, -2:].mean()) > 22
    thick = "light" if ink < 73 else "plain" if ink < 82 else "bold"
    return f"a {thick} {'wide' if wide else 'narrow'} {NAMES[digit]}"


@functools.cache
def captioned_digits_file() -> Path:
    """400 digits as `images`, their `labels` and their `captions`, of 60 that there could be."""
    data = load_data("digits")
    assert isinstance(data, ArrayDataset)
    assert data.labels is not None
    images, labels = data.images[:400], data.labels[:400]
    captions = [caption(digit, images[place]) for place, digit in enumerate(labels.tolist())]
    path = Path(tempfile.mkdtemp(prefix="gensdk-captions-")) / "digits.npz"
    np.savez(path, images=images, labels=labels, captions=np.array(captions), allow_pickle=False)
    return path


@functools.cache
def captioned_digits() -> ArrayDataset:
    """All of them."""
    data = load_data(str(captioned_digits_file()), captions="captions")
    assert isinstance(data, ArrayDataset)
    return data
