"""The kernel distance between two sets of features: unbiased, so that few samples don't shift it.

Binkowski et al. (2018), "Demystifying MMD GANs", section 4: the squared maximum mean discrepancy with the kernel
``k(x, y) = (x . y / F + 1)^3``, in its unbiased form, which may be a little below 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.features import Estimate, Float64, check_pair

SUBSETS = 100
SUBSET_SIZE = 1000


def kernel_distance(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> Estimate:
    """KID of features `a` [n, F] and `b` [m, F]: the mean over random subsets, and its standard error.

    A subset has `subset_size` samples of each, at most half of the smaller set. Subsets overlap, so their spread
    alone says too little: the error is that of the delete-d jackknife (Shao & Wu 1989),
    ``sqrt(s / (n - s) Var)`` for subsets of s out of n. Raises :class:`InputError` for fewer than 4 samples.
    """
    first, second = check_pair(a, b, at_least=4)
    if subsets < 2 or subset_size < 2:
        raise InputError(f"expected at least 2 subsets of at least 2 samples, got {subsets} of {subset_size}")
    smaller = min(len(first), len(second))
    size = min(subset_size, smaller // 2)
    random = np.random.Generator(np.random.Philox(seed))
    values = np.array(
        [
            squared_mmd(
                first[random.choice(len(first), size, replace=False)],
                second[random.choice(len(second), size, replace=False)],
            )
            for _ in range(subsets)
        ]
    )
    error = np.sqrt(size / (smaller - size) * values.var(ddof=1))
    return Estimate(float(values.mean()), float(error))


def squared_mmd(a: Float64, b: Float64) -> float:
    """The unbiased squared MMD of `a` [n, F] and `b` [m, F] (Gretton et al. 2012, eq. 3)."""
    own = sum((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)) for x in (a, b) for kernel in [_k(x, x)])
    return float(own - 2.0 * _k(a, b).mean())


def _k(x: Float64, y: Float64) -> Float64:
    return np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3)
