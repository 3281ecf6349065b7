"""Laws of the measures: what identical, disjoint, collapsed and copied sets must give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_training.data import load_data
from gensdk_training.data.dataset import ArrayDataset
from gensdk_training.metrics import features as features_module
from gensdk_training.metrics.distribution_distances import (
    jensen_shannon_estimate,
    jensen_shannon_of_logits,
    wasserstein_distance,
)
from gensdk_training.metrics.diversity import diversity
from gensdk_training.metrics.fid import feature_statistics, frechet_distance
from gensdk_training.metrics.inception_score import inception_score
from gensdk_training.metrics.kid import kernel_distance, squared_mmd
from gensdk_training.metrics.manifold import measure_manifolds, realism
from gensdk_training.metrics.neighbours import memorization, nearest_images
from gensdk_training.metrics.paths import path_curve

seeds = st.integers(0, 2**32 - 1)
few = hypothesis_settings(max_examples=15)


def normal(seed: int, count: int, size: int = 5, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size)) + shift


def pictures(seed: int, count: int, side: int = 6, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def test_the_distance_of_sampled_gaussians_nears_the_closed_form() -> None:
    a, b = normal(0, 40000, 4), 2.0 * normal(1, 40000, 4, shift=0.5)
    expected = 4 * (1.0**2 + (2.0 - 1.0) ** 2)  # means 0 and 1, deviations 1 and 2
    assert frechet_distance(feature_statistics(a), feature_statistics(b)) == pytest.approx(expected, rel=0.03)


@given(seeds, st.integers(2, 12))
def test_the_score_is_one_for_a_uniform_answer_and_the_classes_for_sure_ones(seed: int, classes: int) -> None:
    same = np.tile(np.random.default_rng(seed).standard_normal(classes), (40, 1))
    assert inception_score(same).value == pytest.approx(1.0)
    sure = np.tile(1e4 * np.eye(classes), (30, 1))
    score = inception_score(sure, splits=3)
    assert (score.value, score.error) == (pytest.approx(classes), pytest.approx(0.0, abs=1e-9))
    between = inception_score(np.random.default_rng(seed).standard_normal((50, classes)), splits=1)
    assert 1.0 <= between.value <= classes


@given(seeds)
@few
def test_the_kernel_distance_of_a_split_is_nothing_within_its_error(seed: int) -> None:
    x = normal(seed, 400)
    estimate = kernel_distance(x[::2], x[1::2])
    assert abs(estimate.value) < 5 * estimate.error
    moved = kernel_distance(x[::2], x[1::2] + 1.0)
    assert moved.value > 5 * moved.error
    assert kernel_distance(x[::2], x[1::2]) == estimate, "the same subsets every time"


def test_the_kernel_distance_is_that_of_its_definition() -> None:
    a, b = normal(0, 6, 3), normal(1, 7, 3)
    k = lambda x, y: (float(x @ y) / 3 + 1) ** 3  # noqa: E731
    own = [
        sum(k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j) / (len(s) * (len(s) - 1))
        for s in (a, b)
    ]
    cross = sum(k(x, y) for x in a for y in b) / 42
    assert squared_mmd(a, b) == pytest.approx(sum(own) - 2 * cross)


@pytest.mark.parametrize("block", [7, 2**22])
def test_precision_and_recall_of_identical_disjoint_and_dropped(block: int, monkeypatch) -> None:
    monkeypatch.setattr(features_module, "BLOCK", block)
    modes = np.concatenate([normal(i, 60, shift=20.0 * i) for i in range(4)])
    same = measure_manifolds(modes, modes)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    assert same.density >= 1.0
    apart = measure_manifolds(modes, modes + 1000.0)
    assert apart.to_dict() == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}
    again = np.concatenate([normal(50, 120), normal(51, 120, shift=20.0)])
    dropped = measure_manifolds(modes, again)
    assert dropped.precision > 0.8
    assert dropped.recall < 0.55
    assert dropped.coverage < 0.55
    invented = measure_manifolds(again, modes)
    assert invented.precision < 0.55
    assert invented.recall > 0.8


def test_repeated_points_are_inside_their_own_manifold() -> None:
    repeated = np.repeat(normal(0, 3), 8, axis=0) + 1e3
    assert measure_manifolds(repeated, repeated).precision == 1.0


def test_realism_falls_with_the_distance_from_the_data() -> None:
    real = normal(0, 200)
    away = realism(real, np.array([[0.0] * 5, [3.0] * 5, [30.0] * 5]))
    assert away[0] > 1 > away[1] > away[2] > 0
    assert np.isfinite(realism(real, real)).all()


def test_copies_are_found_flipped_ones_too_and_new_images_are_none() -> None:
    training, tests, fresh = pictures(0, 300), pictures(1, 100), pictures(2, 60)
    samples = fresh.copy()
    samples[7] = training[123]
    samples[21] = training[45][:, ::-1]
    parts = [training[:100], training[100:]]
    near = nearest_images(samples, parts)
    assert (near.index[[7, 21]].tolist(), near.flipped[[7, 21]].tolist()) == ([123, 45], [False, True])
    assert near.distance[[7, 21]].tolist() == [0.0, 0.0]
    report = memorization(near, nearest_images(tests, parts))
    assert set(report.copies[:2]) == {7, 21}
    assert report.copy_share < 0.1
    assert report.flipped >= 1
    assert 0.3 < report.nearer < 0.7
    unflipped = nearest_images(samples, parts, flips=False)
    assert not unflipped.flipped.any()
    assert unflipped.distance[21] > 0.1
    stolen = memorization(nearest_images(training[:60], parts), nearest_images(tests, parts))
    assert (stolen.nearer, stolen.copy_share) == (1.0, 1.0)


def test_the_neighbours_are_those_of_a_plain_search_and_large_images_are_compared_smaller() -> None:
    queries, training = pictures(3, 9), pictures(4, 50)
    both = np.concatenate((training, training[:, :, ::-1])).reshape(100, -1) / 255.0
    plain = np.sqrt(np.square(queries.reshape(9, 1, -1) / 255.0 - both).mean(axis=2))
    near = nearest_images(queries, [training])
    np.testing.assert_allclose(near.distance, plain.min(axis=1), rtol=1e-5)
    assert (near.index == plain.argmin(axis=1) % 50).all()
    large = pictures(5, 4, side=70, channels=3)
    assert nearest_images(large[2:3], [large]).index.tolist() == [2]


def test_a_path_is_smooth_jumps_or_stays() -> None:
    weights = normal(0, 8, 20).astype(np.float32)
    smooth = path_curve(lambda z: z @ weights, (8,))
    assert smooth.output[0] == 0.0
    assert list(smooth.output) == sorted(smooth.output)
    assert smooth.steepest < 0.2
    assert smooth.latent[-1] == pytest.approx(math.sqrt(2), rel=0.1)
    jumping = path_curve(lambda z: np.sign(z[:, :1]) * np.ones((1, 20)), (8,), pairs=1, seed=3)
    assert jumping.reach == 0 or jumping.steepest == pytest.approx(1.0)
    collapsed = path_curve(lambda z: np.ones((len(z), 20)), (8,))
    assert (collapsed.reach, collapsed.steepest) == (0.0, 0.0)


def test_diversity_is_one_for_the_data_and_nothing_for_a_collapse() -> None:
    data = load_data("digits")
    assert isinstance(data, ArrayDataset)
    one, two = data.images[:64], data.images[64:128]
    own = diversity(one, two)
    assert own.pairs == pytest.approx(1.0, abs=0.15)
    assert own.nearest == pytest.approx(1.0, abs=0.35)
    assert diversity(np.repeat(one[:1], 64, axis=0), two).pairs == 0.0
    three = diversity(np.tile(one[:3], (20, 1, 1, 1)), two)
    assert three.pairs > 0.4
    assert three.nearest == 0.0
    assert diversity(one, np.zeros_like(one)).pairs == 1.0


def test_jensen_shannon_is_stuck_where_wasserstein_still_tells() -> None:
    line = np.random.default_rng(0).random((300, 1))
    real = np.concatenate((np.zeros_like(line), line), axis=1)
    for theta in (0.5, 1.0, 2.0):
        fake = np.concatenate((np.full_like(line, theta), line), axis=1)
        assert jensen_shannon_estimate(real, fake, steps=150) == pytest.approx(math.log(2), abs=0.02)
        assert wasserstein_distance(real, fake) == pytest.approx(theta)
    assert jensen_shannon_estimate(normal(0, 400, 2), normal(1, 400, 2), steps=60) < 0.05
    assert wasserstein_distance(real, real) == 0.0


def test_jensen_shannon_of_the_best_discriminator_is_the_divergence() -> None:
    x, y = normal(0, 200_000, 1)[:, 0], normal(1, 200_000, 1, shift=1.0)[:, 0]
    ratio = lambda v: 0.5 - v  # noqa: E731 - log of N(v; 0, 1) / N(v; 1, 1)
    grid = np.linspace(-9, 10, 20001)
    p, q = (np.exp(-((grid - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0.0, 1.0))
    m = (p + q) / 2
    expected = (p * np.log(p / m) + q * np.log(q / m)).sum() / 2 * (grid[1] - grid[0])
    assert jensen_shannon_of_logits(ratio(x), ratio(y)) == pytest.approx(expected, abs=0.003)


NAN = np.array([[0.0, np.nan]] * 9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: inception_score(NAN),
        lambda: inception_score(np.zeros((3, 4)), splits=5),
        lambda: inception_score(np.zeros(4)),
        lambda: kernel_distance(normal(0, 3), normal(0, 9)),
        lambda: kernel_distance(normal(0, 9), normal(0, 9, 4)),
        lambda: kernel_distance(normal(0, 9), normal(0, 9), subset_size=1),
        lambda: measure_manifolds(normal(0, 5), normal(0, 9)),
        lambda: measure_manifolds(normal(0, 9, 2), NAN),
        lambda: realism(normal(0, 2), normal(0, 9)),
        lambda: nearest_images(pictures(0, 2), [pictures(0, 2, side=7)]),
        lambda: nearest_images(pictures(0, 2), []),
        lambda: nearest_images(pictures(0, 0), [pictures(0, 2)]),
        lambda: nearest_images(pictures(0, 2).astype(np.float32), [pictures(0, 2)]),  # type: ignore[arg-type]
        lambda: path_curve(lambda z: z * np.nan, (3,)),
        lambda: path_curve(lambda z: z, (3,), steps=0),
        lambda: diversity(np.zeros((1, 4)), np.zeros((5, 4))),
        lambda: diversity(np.zeros((5, 3)), np.zeros((5, 4))),
        lambda: diversity(NAN, NAN),
        lambda: jensen_shannon_of_logits(np.array([]), np.zeros(3)),
        lambda: jensen_shannon_of_logits(np.array([np.inf]), np.zeros(3)),
        lambda: wasserstein_distance(normal(0, 3), normal(0, 4)),
        lambda: wasserstein_distance(np.zeros((5000, 1)), np.zeros((5000, 1))),
    ],
)
def test_what_can_not_be_measured_is_refused_in_one_line(call) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)


class PooledPixels(torch.nn.Module):
    """Features or logits for torchmetrics: the means of an image's blocks, mixed by a fixed matrix."""

    num_features = 12

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mix", gain * torch.randn(12, 12, generator=generator, dtype=torch.float64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, H, W] to [n, 12]."""
        pooled = torch.nn.functional.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1)
        return pooled @ self.mix


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features")
def test_frechet_and_kernel_distances_are_those_of_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    module = PooledPixels()
    real, fake = (torch.from_numpy(pictures(seed, 60, 8, 3)).permute(0, 3, 1, 2) for seed in (0, 1))
    fake = fake // 2
    ours = [module(images).numpy() for images in (real, fake)]
    fid = FrechetInceptionDistance(feature=module, input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    kid = KernelInceptionDistance(feature=module, subsets=2, subset_size=60)
    for theirs in (fid, kid):
        theirs.update(real, real=True)
        theirs.update(fake, real=False)
    expected = frechet_distance(*(feature_statistics(features) for features in ours))
    assert expected == pytest.approx(float(fid.compute()), rel=1e-5)
    assert squared_mmd(*ours) == pytest.approx(float(kid.compute()[0]), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features", "ignore:std\\(\\)")
def test_the_score_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.inception import InceptionScore

    module = PooledPixels(gain=8.0)
    images = torch.from_numpy(pictures(3, 80, 4, 3)).permute(0, 3, 1, 2)
    theirs = InceptionScore(feature=module, splits=1)
    theirs.update(images)
    ours = inception_score(module(images).numpy(), splits=1).value
    assert ours > 1.05
    assert ours == pytest.approx(float(theirs.compute()[0]), rel=1e-5)
