"""The 1,797 handwritten digits, 8x8, that scikit-learn ships (Alpaydin & Kaynak 1998, UCI repository)."""

from __future__ import annotations

import numpy as np

from gensdk_runtime.errors import InputError, UnavailableError
from gensdk_training.data.arrays import array_dataset, take_holdout
from gensdk_training.data.dataset import ArrayDataset, LoadOptions

TEST_FRACTION = 0.2
"""1,438 images for training, 359 for testing: a fixed permutation, the same in every run."""


def load_digits(options: LoadOptions) -> ArrayDataset:
    """Ten classes; the source's grey levels 0 .. 16 become ``round(level * 255 / 16)``."""
    try:
        from sklearn import datasets
    except ImportError:
        raise UnavailableError(
            'digits come with scikit-learn, which is missing: pip install "gensdk[training]"'
        ) from None
    if options.holdout > 0:
        raise InputError("digits have their own test split; leave holdout at 0")
    source = datasets.load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)[..., None]
    parts = take_holdout(images, source.target.astype(np.int64), TEST_FRACTION, options)
    return array_dataset("digits", *parts, tuple(str(digit) for digit in range(10)), options)
