"""The inception score, from any classifier's logits.

Salimans et al. (2016), "Improved Techniques for Training GANs", section 4: ``exp(E_x KL(p(y|x) || p(y)))``, all in
logarithms, so that sure answers give no ``0 log 0``. It is 1 where every image gets the same answer, and the
number of classes where each gets a sure one and all classes come equally often. It never looks at real images: a
model that gives one perfect picture a class has the best score.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.features import Estimate, Float64, check_features

SPLITS = 10
"""Parts that the samples are cut into, as in the paper's code."""


def inception_score(logits: NDArray[np.floating], *, splits: int = SPLITS) -> Estimate:
    """The mean score of `splits` equal parts of `logits` [n, K] (in their order), and its standard error.

    Raises :class:`InputError` for other shapes, NaN, or fewer samples than parts.
    """
    values = check_features(logits, at_least=1)
    if not 1 <= splits <= len(values):
        raise InputError(f"expected 1 .. {len(values)} splits of {len(values)} samples, got {splits}")
    log_p = values - _log_sum_exp(values, axis=1)[:, None]
    scores = np.array([_score(part) for part in np.array_split(log_p, splits)])
    error = float(scores.std(ddof=1) / np.sqrt(splits)) if splits > 1 else 0.0
    return Estimate(float(scores.mean()), error)


def _score(log_p: Float64) -> float:
    marginal = _log_sum_exp(log_p, axis=0) - np.log(len(log_p))
    divergence = (np.exp(log_p) * (log_p - marginal)).sum(axis=1)
    return float(np.exp(divergence.mean()))


def _log_sum_exp(values: Float64, *, axis: int) -> Float64:
    highest = values.max(axis=axis, keepdims=True)
    total = np.log(np.exp(values - highest).sum(axis=axis))
    return np.asarray(total + highest.squeeze(axis))
