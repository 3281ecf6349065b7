"""R-precision is what it says; a matcher learns from the training part alone, and the same from the same seed."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_training.data.load import load_data
from gensdk_training.metrics.matcher import CaptionedImages, MatcherSettings, cached_matcher, train_matcher
from gensdk_training.metrics.r_precision import r_precision
from gensdk_training.networks.shifted import shifted
from support.captions import HOLDOUT, captioned_digits_file

QUICK = MatcherSettings(steps=120)
DRAWN = np.random.Generator(np.random.Philox(3))
IMAGES, TEXTS = DRAWN.normal(size=(50, 6)), DRAWN.normal(size=(40, 6))
ASKED = DRAWN.integers(0, 40, 50)


def test_a_perfect_pairing_is_always_first() -> None:
    found = r_precision(3 * TEXTS[ASKED], ASKED, TEXTS)
    assert (found.first.value, found.first.error, found.rank.value) == (1.0, 0.0, 1.0)
    worst = r_precision(-TEXTS[ASKED], ASKED, TEXTS)
    assert worst.first.value < 0.01
    assert worst.rank.value > 30


def test_pairs_at_random_are_chance() -> None:
    """The mean over all pairings of images and texts is exactly that, and so is what tells nothing apart."""
    every = np.tile(np.arange(40), len(IMAGES))
    found = r_precision(np.repeat(IMAGES, 40, axis=0), every, TEXTS)
    blind = r_precision(np.ones((50, 6)), ASKED, np.ones((40, 6)))
    for each in (found, blind):
        assert each.first.value == pytest.approx(1 / 32)
        assert each.rank.value == pytest.approx(33 / 2)


def test_it_is_the_mean_over_all_choices_of_candidates() -> None:
    texts, images, asked = TEXTS[:6].copy(), IMAGES[:9], ASKED[:9] % 6
    texts[4] = texts[1]  # a tie, which counts half
    cosines = (images @ texts.T) / np.linalg.norm(images, axis=1)[:, None] / np.linalg.norm(texts, axis=1)
    firsts, ranks = [], []
    for row, right in zip(cosines, asked, strict=True):
        for others in combinations([at for at in range(6) if at != right], 2):
            better = sum(row[at] > row[right] + 1e-9 for at in others)
            tied = sum(abs(row[at] - row[right]) <= 1e-9 for at in others)
            firsts.append((better == 0) / (1 + tied))
            ranks.append(1 + better + tied / 2)
    found = r_precision(images, asked, texts, candidates=3)
    assert found.first.value == pytest.approx(np.mean(firsts))
    assert found.rank.value == pytest.approx(np.mean(ranks))


def test_no_order_matters() -> None:
    found = r_precision(IMAGES, ASKED, TEXTS)
    images, texts = DRAWN.permutation(50), DRAWN.permutation(40)
    other = r_precision(IMAGES[images], np.argsort(texts)[ASKED[images]], TEXTS[texts])
    assert other.first.value == pytest.approx(found.first.value)
    assert other.rank.value == pytest.approx(found.rank.value)
    assert other.first.error == pytest.approx(found.first.error)


@pytest.mark.parametrize(
    ("texts", "asked", "message"),
    [
        (TEXTS[:31], ASKED % 31, "at least 32 different captions to rank, got 31"),
        (TEXTS, ASKED + 40, "the number of one of 40 captions"),
        (TEXTS, ASKED[:7], "for each of 50 images"),
        (TEXTS[:, :3], ASKED, "features of two extractors"),
    ],
)
def test_what_can_not_be_ranked(texts: Any, asked: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        r_precision(IMAGES, asked, texts)


def part(split: Any) -> CaptionedImages:
    return CaptionedImages.of(
        load_data(str(captioned_digits_file()), captions="captions", holdout=HOLDOUT, split=split)
    )


def test_a_matcher_learns_what_goes_together_and_is_kept(tmp_path: Path) -> None:
    train = part("train")
    test = load_data(str(captioned_digits_file()), captions="captions", holdout=HOLDOUT, split="test")
    assert test.captions is not None
    texts = sorted(set(test.captions.texts))
    asked = np.array([texts.index(text) for text in test.captions.texts], np.int64)
    before = torch.get_rng_state()
    matcher = cached_matcher(train, tmp_path / "matchers", QUICK)
    assert torch.equal(before, torch.get_rng_state())
    images = np.asarray(test.batch(np.arange(len(test))).images, np.uint8)
    found = r_precision(matcher.images(images), asked, matcher.texts(texts))
    assert found.first.value > 4 / 32
    assert found.rank.value < 11
    np.testing.assert_allclose(np.linalg.norm(matcher.texts(texts), axis=1), 1.0, atol=1e-4)
    (file,) = (tmp_path / "matchers").iterdir()
    again = cached_matcher(train, tmp_path / "matchers", QUICK)
    assert list((tmp_path / "matchers").iterdir()) == [file]
    np.testing.assert_array_equal(again.images(images), matcher.images(images))
    with pytest.raises(InputError, match=r"takes uint8 images \[8, 8, 1\]"):
        matcher.images(images[:, :4])


def test_the_same_seed_trains_the_same_matcher() -> None:
    train = part("train")
    first, same, other = (train_matcher(train, MatcherSettings(steps=5, seed=seed)) for seed in (0, 0, 1))
    texts = ("a bold wide one", "", "an unheard word")
    np.testing.assert_array_equal(first.texts(texts), same.texts(texts))
    assert (first.texts(texts) != other.texts(texts)).any()


def test_a_matcher_needs_captions() -> None:
    with pytest.raises(InputError, match="has no captions, which a matcher needs; give --captions"):
        CaptionedImages.of(load_data("digits"))


def test_moved_images_keep_their_edges() -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 3, 8, 16, requires_grad=True)
    moved = shifted(images, 0.25)
    assert moved.shape == images.shape
    down, across = {0}, {0}
    for one, other in zip(images, moved, strict=True):
        places = [
            (y, x)
            for y in range(-2, 3)
            for x in range(-4, 5)
            if torch.equal(
                one[:, (torch.arange(8) + y).clamp(0, 7)][:, :, (torch.arange(16) + x).clamp(0, 15)], other
            )
        ]
        assert len(places) == 1
        down.add(places[0][0])
        across.add(places[0][1])
    assert (max(down), max(across)) == (2, 4)
    moved.sum().backward()
    assert images.grad is not None
    assert images.grad.sum() == pytest.approx(moved.numel())
    assert shifted(images, 0.05) is images
