"""The Fréchet distance against closed forms, and the classifier that judges digits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from gensdk_runtime.errors import InputError
from gensdk_training.data import load_data
from gensdk_training.data.dataset import Split
from gensdk_training.metrics.classifier import (
    FEATURES,
    ClassifierSettings,
    ImageClassifier,
    LabelledImages,
    cached_classifier,
    train_classifier,
)
from gensdk_training.metrics.fid import FeatureStatistics, feature_statistics, frechet_distance
from gensdk_training.metrics.quality import ImageJudge

QUICK = ClassifierSettings(steps=150)

seeds = st.integers(0, 2**32 - 1)


def features(seed: int, count: int = 40, size: int = 6) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((count, size)) @ random.standard_normal((size, size)) + random.standard_normal(
        size
    )


@cache
def digits(split: Split) -> LabelledImages:
    return LabelledImages.of(load_data("digits", split=split))


@cache
def judge() -> ImageJudge:
    return ImageJudge(train_classifier(digits("train"), QUICK), digits("train"), digits("test"))


@given(seeds, st.integers(8, 60))
def test_the_distance_is_that_of_the_general_matrix_root(seed: int, count: int) -> None:
    a, b = feature_statistics(features(seed, count)), feature_statistics(features(seed + 1, 50))
    cross = np.trace(sqrtm(a.covariance @ b.covariance)).real
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(seeds)
def test_the_distance_of_diagonal_gaussians_has_a_closed_form(seed: int) -> None:
    random = np.random.default_rng(seed)
    means, deviations = random.standard_normal((2, 5)), random.random((2, 5))
    a, b = (
        FeatureStatistics(mean, np.diag(deviation**2), 10)
        for mean, deviation in zip(means, deviations, strict=True)
    )
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)


@given(seeds, st.integers(2, 40))
def test_the_distance_is_a_distance_even_with_fewer_samples_than_features(seed: int, count: int) -> None:
    x = features(seed, count, size=20)
    a, b = feature_statistics(x), feature_statistics(features(seed + 1, 30, size=20))
    scale = np.trace(a.covariance) + np.trace(b.covariance)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6 * scale)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-6 * scale)
    assert frechet_distance(a, b) >= 0
    moved = feature_statistics(x + 3.0)
    assert frechet_distance(a, moved) == pytest.approx(9.0 * 20, abs=1e-6 * scale)


@given(seeds)
@settings(max_examples=20)
def test_rotating_the_features_changes_nothing(seed: int) -> None:
    rotation = ortho_group.rvs(6, random_state=seed)
    x, y = features(seed), features(seed + 1)
    straight = frechet_distance(feature_statistics(x), feature_statistics(y))
    turned = frechet_distance(feature_statistics(x @ rotation), feature_statistics(y @ rotation))
    assert turned == pytest.approx(straight, rel=1e-8)


@pytest.mark.parametrize(
    "bad", [np.zeros((1, 4)), np.zeros(5), np.zeros((4, 0)), np.array([[0.0, np.nan], [0, 1], [1, 1]])]
)
def test_features_that_have_no_statistics_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError):
        feature_statistics(bad)


def test_features_of_two_extractors_are_refused() -> None:
    with pytest.raises(InputError, match="6 and 5 values"):
        frechet_distance(feature_statistics(features(0)), feature_statistics(features(0, size=5)))


def test_the_classifier_learns_digits() -> None:
    classifier = judge().classifier
    assert classifier.accuracy(digits("test")) > 0.9
    values = classifier.features(digits("test").images[:7])
    assert values.shape == (7, FEATURES)
    assert values.dtype == np.float64
    assert (values >= 0).all(), "features are taken after ReLU"


def test_the_classifier_is_the_same_each_time_and_leaves_the_global_generator(tmp_path: Path) -> None:
    few = ClassifierSettings(steps=5)
    torch.manual_seed(7)
    first = cached_classifier(digits("train"), tmp_path, few)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)
    again = train_classifier(digits("train"), few)
    stored = cached_classifier(digits("train"), tmp_path, few)
    probe = digits("test").images[:20]
    assert np.array_equal(first.features(probe), again.features(probe))
    assert np.array_equal(first.features(probe), stored.features(probe))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"not safetensors", b"\xff" * 64])
def test_a_damaged_cache_is_trained_anew(tmp_path: Path, damage: bytes) -> None:
    few = ClassifierSettings(steps=2)
    first = cached_classifier(digits("train"), tmp_path, few)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage)
    again = cached_classifier(digits("train"), tmp_path, few)
    probe = digits("test").images[:5]
    assert np.array_equal(first.features(probe), again.features(probe))
    assert path.read_bytes() == whole


def test_other_data_or_settings_get_a_classifier_of_their_own(tmp_path: Path) -> None:
    data = digits("train")
    darker = LabelledImages(data.images // 2, data.labels)
    for variant, settings_ in ((data, 1), (data, 2), (darker, 1)):
        cached_classifier(variant, tmp_path, ClassifierSettings(steps=settings_))
    assert len(list(tmp_path.iterdir())) == 3


def test_images_of_another_size_are_refused_not_resized() -> None:
    classifier: ImageClassifier = judge().classifier
    with pytest.raises(InputError, match="nothing is resized"):
        classifier.features(np.zeros((3, 9, 8, 1), np.uint8))
    with pytest.raises(InputError, match="uint8"):
        classifier.features(np.zeros((3, 8, 8, 1), np.float32))  # type: ignore[arg-type]


def test_labels_must_match_images() -> None:
    with pytest.raises(InputError, match="3 images with labels"):
        LabelledImages(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(InputError, match="has no labels"):
        LabelledImages.of(load_data("digits", labels="none"))


def test_the_training_images_get_the_floor_and_noise_does_not() -> None:
    train = digits("train")
    own = judge().measure(train.images, train.labels)
    assert own.fid == pytest.approx(own.floor, rel=1e-9)
    assert own.label_accuracy is not None
    assert own.label_accuracy > 0.95
    noise = np.random.default_rng(0).integers(0, 256, train.images.shape, dtype=np.uint8)
    assert judge().measure(noise).fid > 20 * own.floor
    one_class = train.images[train.labels == 3]
    assert judge().measure(one_class).fid > 5 * own.floor, "dropping modes must cost"


def test_images_that_show_another_class_lose_label_accuracy() -> None:
    test = digits("test")
    assert judge().measure(test.images, test.labels).label_accuracy == judge().classifier_accuracy
    wrong = judge().measure(test.images, (test.labels + 1) % 10).label_accuracy
    assert wrong is not None
    assert wrong < 0.1


def test_a_report_names_extractor_resizing_count_and_floor() -> None:
    report = judge().measure(digits("test").images)
    text = str(report)
    for part in ("floor", "64 units", "8x8x1", "resizing: none", "359 images against 359 test images"):
        assert part in text
    assert report.to_dict()["label_accuracy"] is None
