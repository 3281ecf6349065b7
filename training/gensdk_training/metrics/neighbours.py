"""Does the model copy? Nearest training images of samples, against those of test images, flipped copies included.

A model that has learned the data is as far from the training images as the test images are: both come from the
same distribution. One that has learned the training images by heart is nearer. Meehan, Chaudhuri & Dasgupta
(2020), "A Non-Parametric Test to Detect Data-Copying in Generative Models", compare the two sets of distances so.

It does not: find copies that were shifted, cut or recoloured. Blurred samples are nearer to everything, and look
like copies to it a little: look at the pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import fit_size
from gensdk_training.data.dataset import Images, check_images

LARGEST_SIDE = 32
"""Pixels; larger images are compared at this size, which keeps what the eye takes for the same picture."""

COPY_SHARE = 0.01
"""A sample counts as a copy that is nearer to a training image than all but this share of the test images."""


@dataclass(frozen=True)
class Neighbours:
    """For each of n images its nearest training image.

    `index`: int64 [n], its position in the training data. `distance`: float64 [n], the root of the mean squared
    difference of their pixels, where black and white are 1 apart. `flipped`: bool [n], where the training image is
    nearest mirrored left to right.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]
    flipped: NDArray[np.bool_]


@dataclass(frozen=True)
class MemorizationReport:
    """Whether `samples` images lie nearer to the training images than `tests` test images do.

    `sample_distance`, `test_distance`: the medians. `nearer`: the probability in [0, 1] that a sample is nearer
    than a test image is; 0.5 for the data itself, 1 where all is copied. `copies`: the samples, by position, that
    are nearer than all but 1 % of the test images (`threshold`), the nearest first; about 1 % would be so by
    chance. `flipped`: how many of them are mirrored.
    """

    samples: int
    tests: int
    sample_distance: float
    test_distance: float
    nearer: float
    threshold: float
    copies: tuple[int, ...]
    flipped: int

    @property
    def copy_share(self) -> float:
        """The share of samples that are copies, in [0, 1]."""
        return len(self.copies) / self.samples

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {**self.__dict__, "copies": list(self.copies), "copy_share": self.copy_share}


def nearest_images(queries: Images, training: Iterable[Images], *, flips: bool = True) -> Neighbours:
    """The nearest of all `training` images, in parts of uint8 [m, H, W, C], of each of `queries` uint8 [n, H, W,
    C].

    Each part is looked at and let go, so the training data need not fit into memory. `flips`: mirrored ones count.
    Raises :class:`InputError` for no images, or images of another shape.
    """
    check_images(queries, "queries")
    wanted = _reduce(queries)
    squares = np.square(wanted).sum(axis=1)
    best = np.full(len(queries), np.inf)
    index, flipped = np.zeros(len(queries), np.int64), np.zeros(len(queries), bool)
    first = 0
    for part in training:
        if part.dtype != np.uint8 or part.shape[1:] != queries.shape[1:]:
            wanted_shape, got = list(queries.shape[1:]), list(part.shape[1:])
            raise InputError(
                f"expected training images uint8 of {wanted_shape}, got {part.dtype} of {got}; resize them"
            )
        for mirrored in (False, True) if flips else (False,):
            known = _reduce(part[:, :, ::-1] if mirrored else part)
            rough = squares[:, None] + np.square(known).sum(axis=1) - 2.0 * wanted @ known.T
            at = rough.argmin(axis=1)
            exact = np.square(wanted - known[at]).mean(axis=1, dtype=np.float64)
            closer = exact < best
            best[closer], index[closer], flipped[closer] = exact[closer], first + at[closer], mirrored
        first += len(part)
    if not first:
        raise InputError("there are no training images to compare with")
    return Neighbours(index, np.sqrt(best), flipped)


def memorization(samples: Neighbours, tests: Neighbours) -> MemorizationReport:
    """Compares the neighbours of samples with those of test images, found among the same training images."""
    own, real = samples.distance, np.sort(tests.distance)
    below, up_to = (np.searchsorted(real, own, side=side) for side in ("left", "right"))
    nearer = 1.0 - float((below + up_to).mean()) / (2 * len(real))  # ties count half
    threshold = float(real[int(COPY_SHARE * len(real))])
    order = np.argsort(own, kind="stable")
    copies = order[own[order] <= threshold] if threshold == 0 else order[own[order] < threshold]
    return MemorizationReport(
        samples=len(own),
        tests=len(real),
        sample_distance=float(np.median(own)),
        test_distance=float(np.median(real)),
        nearer=nearer,
        threshold=threshold,
        copies=tuple(int(i) for i in copies),
        flipped=int(samples.flipped[copies].sum()),
    )


def _reduce(images: Images) -> NDArray[np.float32]:
    """float32 [n, values] in [0, 1], at most :data:`LARGEST_SIDE` pixels a side."""
    height, width = images.shape[1:3]
    if max(height, width) > LARGEST_SIDE:
        shrink = LARGEST_SIDE / max(height, width)
        size = max(1, round(height * shrink)), max(1, round(width * shrink))
        images = np.stack([fit_size(np.ascontiguousarray(image), size, "stretch") for image in images])
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
