"""Digits that a sound goes with, as the frames of a film, for families that make still faces talk."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from gensdk_training.data.dataset import ArrayDataset
from gensdk_training.data.load import load_data

COUNT, SAMPLES, RATE = 200, 80, 2000


@functools.cache
def talking_digits_file() -> Path:
    """`images`, 8x8, brighter below the louder it is; `stills`, the same dark below; `sounds` int16, tones."""
    data = load_data("digits")
    assert isinstance(data, ArrayDataset)
    stills = data.images[:COUNT].copy()
    stills[:, 4:] //= 2
    drawn = np.random.default_rng(0)
    loud, hertz = drawn.uniform(0, 1, COUNT), drawn.uniform(100, 900, COUNT)
    images = stills.copy()
    images[:, 4:] += np.rint(100 * loud).astype(np.uint8)[:, None, None, None]
    waves = np.sin(2 * np.pi * hertz[:, None] * np.arange(SAMPLES) / RATE)
    sounds = np.rint(20_000 * loud[:, None] * waves).astype(np.int16)
    path = Path(tempfile.mkdtemp(prefix="gensdk-talking-")) / "talking.npz"
    arrays = {"images": images, "stills": stills, "sounds": sounds, "sample_rate": np.array(RATE)}
    np.savez(path, allow_pickle=False, **arrays)
    return path


@functools.cache
def talking_digits() -> ArrayDataset:
    """All of them, with their stills as sources."""
    path = talking_digits_file()
    data = load_data(str(path), inputs=f"{path}:stills", sounds="sounds")
    assert isinstance(data, ArrayDataset)
    return data
