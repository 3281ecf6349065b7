"""Images with the sound around them, as the frames of a film: windows of one length beside the images of an
.npz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.sounds import MAX_PEAK, to_pcm16
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.audio import LEAST_RATE, MOST_RATE
from gensdk_training.data.dataset import ArrayDataset, Dataset, LoadOptions, Windows, holdout_indices
from gensdk_training.heard import WindowInfo

RATE_KEY = "sample_rate"
"""Of the array that says how many samples are a second, in Hz."""


def window_keys(keys: Sequence[str], key: str, path: Path) -> list[str]:
    """The arrays of a file to read for the sound around its images; :class:`InputError` where one is missing."""
    for name in (key, RATE_KEY):
        if name not in keys:
            what = "sounds" if name == key else "sample rate beside its sounds, an array"
            raise InputError(f"{path} has no {what} {name[:80]!r}; it has {printable(', '.join(keys[:20]))}")
    return [key, RATE_KEY]


def with_windows(
    dataset: Dataset, arrays: Mapping[str, NDArray[Any]], count: int, options: LoadOptions, *, what: str
) -> None:
    """Gives `dataset`, the part that `options` names of `count` images, the sound around each.

    `arrays` has it under ``options.sounds``, int16 or floats in [-1, 1], [N, samples], and its rate. Raises
    :class:`InputError` for other arrays, and for data that are no images in memory.
    """
    sounds, rate = arrays[options.sounds or ""], arrays[RATE_KEY]
    if not isinstance(dataset, ArrayDataset):
        raise InputError(f"{what}: sounds go with images, these data are {dataset.info.kind}; leave sounds out")
    if sounds.dtype != np.int16 and sounds.dtype.kind != "f":
        raise InputError(f"{what}: expected sounds as int16 or floats in [-1, 1], got {sounds.dtype}; scale them")
    if sounds.ndim != 2 or len(sounds) != count or sounds.shape[1] < 2:
        raise InputError(
            f"{what}: expected sounds [{count}, samples], one for each image, got {list(sounds.shape)}"
        )
    if rate.size != 1 or rate.dtype.kind not in "iu" or not LEAST_RATE <= int(rate.reshape(())) <= MOST_RATE:
        raise InputError(f"{what}: expected sample_rate as one whole number of {LEAST_RATE} to {MOST_RATE} Hz")
    beyond = 0
    if sounds.dtype != np.int16:
        if not np.isfinite(sounds).all():
            raise InputError(f"{what}: its sounds have NaN or infinite samples; expected floats in [-1, 1]")
        if (peak := float(np.abs(sounds).max())) > MAX_PEAK:
            raise InputError(
                f"{what}: its sounds reach {peak:.4g}, and floats of a sound lie in [-1, 1]; scale them"
            )
        beyond = int((np.abs(sounds) > 1).sum())
        sounds = to_pcm16(sounds.astype(np.float32))
    if len(dataset) != count:
        sounds = sounds[holdout_indices(count, options.holdout, options.split)]
    windows = Windows(sounds, int(rate.reshape(())))
    dataset.set_windows(windows)
    window = WindowInfo(samples=sounds.shape[1], sample_rate=windows.sample_rate)
    dataset.info = dataset.info.model_copy(update={"window": window})
    dataset.findings.note(
        f"sound around each image: {window.samples / window.sample_rate:.3g} s at {window.sample_rate} Hz"
    )
    if beyond:
        dataset.findings.note(f"sound: {beyond} samples were beyond full scale, and clipped")
