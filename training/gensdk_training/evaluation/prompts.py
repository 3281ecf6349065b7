"""The texts that samples are asked for: captions of the test images; and how well the samples go with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.spec.model import ModelSpec
from gensdk_training.data.dataset import Dataset, Images, Labels
from gensdk_training.evaluation.evaluation_report import Measure
from gensdk_training.metrics.features import Estimate
from gensdk_training.metrics.matcher import Matcher
from gensdk_training.metrics.r_precision import CANDIDATES, RPrecision, r_precision


@dataclass(frozen=True)
class PromptDraw:
    """How the texts are drawn that samples are made from: those of all test images, in a random order, again and
    again.

    `texts`: of each test image its caption; `labels`: its class, int64 [n] in the data's numbers, None without.
    """

    texts: tuple[str, ...]
    labels: Labels | None

    def places(self, count: int, seed: int) -> NDArray[np.int64]:
        """The test image whose caption each of `count` samples is made from, int64 [count]."""
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(self.texts))
        return np.resize(order, count).astype(np.int64)

    def prompts(self, count: int, seed: int) -> list[str]:
        """`count` texts, as :meth:`Generator.sample` takes them."""
        return [self.texts[place] for place in self.places(count, seed).tolist()]

    def classes(self, count: int, seed: int) -> Labels | None:
        """The classes of their images, int64 [count] in the data's numbers."""
        return None if self.labels is None else self.labels[self.places(count, seed)]

    @property
    def different(self) -> tuple[str, ...]:
        """Each text once, in the order of the alphabet."""
        return tuple(sorted(set(self.texts)))

    @property
    def told(self) -> str:
        """How many."""
        return (
            f"those of the {len(self.texts)} test images, whose captions ({len(self.different)} different ones) "
            "samples are made from in turn"
        )


def prompt_draw(model: ModelSpec, test: Dataset) -> tuple[PromptDraw | None, tuple[str, ...]]:
    """How the prompts of samples of `model` are drawn, whose test images are `test`, and what a reader must know.

    Raises :class:`InputError` where a model that needs a text gets none.
    """
    prompt = model.condition("prompt")
    if prompt is None:
        return None, ()
    if test.captions is not None:
        return PromptDraw(test.captions.texts, test.labels), ()
    if not getattr(prompt, "empty", False):
        raise InputError(f"{model.name!r} is made from texts: give those beside the images with --captions")
    return None, ("the data have no captions: every sample is made from the empty text (--captions gives some)",)


def why_no_matching(model: ModelSpec, train: Dataset, draw: PromptDraw | None) -> str:
    """Why samples can't be ranked with their texts, in words; "" where they can."""
    if model.condition("prompt") is None:
        return f"{model.name!r} is made from no texts"
    if draw is None or train.captions is None:
        return "the data have no captions; give --captions"
    if len(draw.different) < CANDIDATES:
        return (
            f"it ranks {CANDIDATES} different captions, and the test images have {len(draw.different)}; keep more "
            "for the test (--holdout)"
        )
    return ""


def matching_measures(
    matcher: Matcher,
    samples: Images,
    places: NDArray[np.int64],
    draw: PromptDraw,
    *,
    test: Images,
    train: tuple[Images, tuple[str, ...]],
) -> list[Measure]:
    """R-precision and the mean rank, beside what real test images get with their own captions, and training images
    with captions that are not theirs.

    `places`: of each of `samples` the test image whose caption it was made from; `train`: training images, and
    their captions.
    """
    number = {text: at for at, text in enumerate(draw.different)}
    of_test = np.array([number[text] for text in draw.texts], np.int64)
    texts = matcher.texts(draw.different)
    found = r_precision(matcher.images(samples), of_test[places], texts)
    real = r_precision(matcher.images(test), of_test, texts)
    images, own = train
    chance = r_precision(matcher.images(images), _wrong(own, number), texts)
    beside = f"of {found.candidates} captions of test images; floor: the {len(test)} real test images; "
    share = f"{beside}training images with wrong captions: {chance.first.value:.4f}, chance {1 / CANDIDATES:.4f}"
    ranks = f"{beside}training images with wrong captions: {chance.rank.value:.1f}, chance {_middle(found):.1f}"
    return [
        _row("r_precision", "right caption first (R-precision)", (found.first, real.first, chance.first), share),
        _row("r_rank", "mean rank of the right caption", (found.rank, real.rank, chance.rank), ranks),
    ]


def _wrong(own: tuple[str, ...], number: dict[str, int]) -> NDArray[np.int64]:
    """For each training image the number of a caption that is not its own: all of them in turn."""
    count = len(number)
    return np.array(
        [at % count if number.get(text) != at % count else (at + 1) % count for at, text in enumerate(own)],
        np.int64,
    )


def _middle(found: RPrecision) -> float:
    return (found.candidates + 1) / 2


def _row(name: str, title: str, values: tuple[Estimate, Estimate, Estimate], detail: str) -> Measure:
    """`values`: of the samples, of real images, and of wrong pairs."""
    value, real, chance = values
    return Measure(
        name=name,
        title=title,
        value=value.value,
        error=value.error,
        floor=real.value,
        baseline=chance.value,
        better="higher" if name == "r_precision" else "lower",
        detail=detail,
    )
