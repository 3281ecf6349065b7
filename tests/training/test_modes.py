"""Laws of mode coverage: a sample of the mixture itself covers all of it, a collapsed one is named."""

from __future__ import annotations

import numpy as np
import pytest

from gensdk_runtime.errors import InputError
from gensdk_training.metrics.modes import class_modes, mixture_modes

CENTERS = np.stack(np.meshgrid(*[np.arange(-4, 5, 2.0)] * 2), axis=-1).reshape(25, 2)
RNG = np.random.default_rng(0)


def test_the_mixture_itself_is_covered() -> None:
    points = CENTERS[RNG.integers(25, size=2500)] + RNG.normal(0, 0.05, (2500, 2))
    report = mixture_modes(points, CENTERS, 0.05)
    assert (report.covered, report.dropped, report.collapsed) == (25, (), ())
    assert report.high_quality == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # Rayleigh: P(r <= 3 sigma)
    assert report.reverse_kl < 0.02


def test_a_collapsed_model_is_told() -> None:
    report = mixture_modes(np.repeat(CENTERS[7:8], 100, axis=0), CENTERS, 0.05)
    assert (report.covered, report.high_quality, report.collapsed) == (1, 1.0, (7,))
    assert report.reverse_kl == pytest.approx(np.log(25))


def test_points_between_modes_are_of_low_quality() -> None:
    report = mixture_modes(CENTERS + 0.9, CENTERS, 0.05)
    assert (report.covered, report.high_quality) == (0, 0.0)


def test_classes_against_their_shares() -> None:
    classes = np.array([0] * 60 + [1] * 30 + [2] * 10)
    assert class_modes(classes, (0.6, 0.3, 0.1)).reverse_kl == 0.0
    sure = classes != 2
    report = class_modes(classes, (0.6, 0.3, 0.1), sure)
    assert (report.dropped, report.high_quality) == ((2,), 0.9)


@pytest.mark.parametrize(
    ("points", "sigma"), [(np.zeros((0, 2)), 0.1), (np.zeros((4, 3)), 0.1), (np.full((2, 2), np.nan), 0.1)]
)
def test_refusals(points: np.ndarray, sigma: float) -> None:
    with pytest.raises(InputError):
        mixture_modes(points, CENTERS, sigma)
    with pytest.raises(InputError):
        class_modes(np.array([0, 3]), (0.5, 0.5))
