"""The Fréchet distance between two sets of features, in float64.

Heusel et al. (2017), "GANs Trained by a Two Time-Scale Update Rule", eq. 6:
``d^2 = ||mu_a - mu_b||^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))``. The trace of the root is taken in its symmetric
form, ``Tr (S_a^(1/2) S_b S_a^(1/2))^(1/2)``: the same number, but an eigenvalue problem of a symmetric matrix,
which stays real when there are fewer samples than features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.features import Float64, check_features


@dataclass(frozen=True)
class FeatureStatistics:
    """`mean`: float64 [F]. `covariance`: float64 [F, F], unbiased. `count`: of the samples behind them."""

    mean: Float64
    covariance: Float64
    count: int


def feature_statistics(features: NDArray[np.floating]) -> FeatureStatistics:
    """Mean and covariance of `features` [n, F].

    Raises :class:`InputError` for fewer than two samples, another number of axes, or values not finite.
    """
    values = check_features(features)
    mean = np.asarray(values.mean(axis=0))
    centered = values - mean
    covariance = centered.T @ centered / (len(values) - 1)
    return FeatureStatistics(mean=mean, covariance=covariance, count=len(values))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """d^2 between the Gaussians of `a` and `b`: 0 for equal ones, symmetric, never negative."""
    if a.mean.shape != b.mean.shape:
        raise InputError(f"features of two extractors: {len(a.mean)} and {len(b.mean)} values")
    root = _symmetric_root(a.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ b.covariance @ root)
    cross = np.sqrt(np.clip(eigenvalues, 0.0, None)).sum()
    shift = np.square(a.mean - b.mean).sum()
    return max(0.0, float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * cross))


def _symmetric_root(matrix: Float64) -> Float64:
    """The positive semidefinite square root; eigenvalues that rounding made negative count as 0."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(eigenvalues, 0.0, None))) @ vectors.T)
