"""Whether samples that were made in two ways are the same: bit for bit, or how far apart and how far they may
be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gensdk_runtime.backends.bound import Array
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.programs.proving import one_same
from gensdk_runtime.proof.drift import sample_drift
from gensdk_runtime.proof.golden import GoldenBounds
from gensdk_runtime.proof.verify import load_golden
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.model import ModelSpec

APART = 2.0
"""Two runs that each keep a bound against PyTorch are no further apart than twice that bound."""


@dataclass(frozen=True)
class Equality:
    """`difference`: the largest, in the unit of the samples; `words` say which equality it is."""

    ok: bool
    bits: bool
    difference: float
    words: str


def bounds_of(bundle: str, precision: Precision) -> GoldenBounds:
    """What the bundle allows its backends."""
    with Bundle.open(bundle) as opened:
        return load_golden(opened).bounds[precision]


def equality(model: ModelSpec, bounds: GoldenBounds, expected: Array, got: Array) -> Equality:
    """Of two arrays of samples [n, ...]. Of an autoregressive model one sample at least has to be the same: a
    pixel on the edge of its CDF changes all that come after it."""
    if expected.shape != got.shape:
        return Equality(False, False, float("inf"), f"shapes {list(expected.shape)} and {list(got.shape)}")
    difference = float(np.abs(np.subtract(got, expected, dtype=np.float64)).max(initial=0.0))
    if np.array_equal(got, expected):
        return Equality(True, True, 0.0, "bit for bit")
    if one_same(model):
        same = int((got == expected).reshape(len(got), -1).all(axis=1).sum())
        return Equality(same > 0, False, difference, f"{same} of {len(got)} samples are bit for bit the same")
    drift, allowed = sample_drift(model, expected, got), APART * (bounds.samples or bounds.graph)
    words = f"not bit for bit: scaled {drift.scaled:.2e}, allowed {allowed:.2e}"
    return Equality(drift.scaled <= allowed and not drift.non_finite, False, difference, words)
