"""Sounds in place of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gensdk_training.data.dataset import Dataset, ImageBatch, Labels, picked, with_classes
from gensdk_training.family import DataInfo

Sounds = NDArray[np.float32]
_CROP_STREAM = 5 << 61
"""Keeps the keys apart from those of noise, order and augmentation."""


class SoundDataset(Dataset):
    """Sounds in memory: each float32 [samples, channels] in [-1, 1], of any length; `labels` int64 [N] or None.

    Batches are of one length, ``info.height``: shorter sounds end in silence, and ``ImageBatch.lengths`` says
    where; of longer ones :meth:`batch` gives the beginning, and :meth:`training_batch` a part that starts
    anywhere.
    """

    def __init__(self, info: DataInfo, sounds: Sequence[Sounds], labels: Labels | None) -> None:
        super().__init__(info, None)
        self.sounds = tuple(sounds)
        self._labels = labels

    def _digest(self) -> str:
        audio = self.info.require_audio()
        digest = hashlib.blake2b(f"{audio.sample_rate} {self.info.height}".encode(), digest_size=16)
        for sound in self.sounds:
            digest.update(len(sound).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(sound).data)
        if self._labels is not None:
            digest.update(np.ascontiguousarray(self._labels).data)
        return digest.hexdigest()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples of each sound, int64 [N]."""
        return np.array([len(sound) for sound in self.sounds], np.int64)

    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The sounds at `indices` from their beginning, float32 [B, samples, channels]; a copy."""
        return self._cut(indices, [0] * len(indices))

    def training_batch(self, indices: NDArray[np.int64], *, seed: int, first: int) -> ImageBatch:
        """As :meth:`batch`; of a longer sound a part that starts anywhere, as `seed` and its place in the run's
        order decide."""
        starts = []
        for place, index in enumerate(indices.tolist(), first):
            room = len(self.sounds[index]) - self.info.height
            key = np.array([seed, _CROP_STREAM | place], np.uint64)
            starts.append(
                int(np.random.Generator(np.random.Philox(key=key)).integers(room + 1)) if room > 0 else 0
            )
        return self._cut(indices, starts)

    def _cut(self, indices: NDArray[np.int64], starts: Sequence[int]) -> ImageBatch:
        size = self.info.height
        cut = np.zeros((len(indices), size, self.info.channels), np.float32)
        lengths = np.zeros(len(indices), np.int64)
        for row, (index, start) in enumerate(zip(indices.tolist(), starts, strict=True)):
            part = self.sounds[index][start : start + size]
            cut[row, : len(part)], lengths[row] = part, len(part)
        return ImageBatch(cut, None if self._labels is None else self._labels[indices], lengths=lengths)

    @property
    def labels(self) -> Labels | None:
        """The class of each sound, int64 [N]; None without labels."""
        return self._labels

    def take(self, indices: NDArray[np.int64]) -> SoundDataset:
        """A data set of the sounds at `indices`."""
        labels = None if self._labels is None else self._labels[indices]
        kept = self.info.model_copy(update={"count": len(indices)})
        dataset = SoundDataset(kept, [self.sounds[index] for index in indices.tolist()], labels)
        self._pass_on(dataset)
        dataset.keys = picked(self.keys, indices.tolist())
        return dataset

    def relabelled(self, labels: Labels, class_names: tuple[str, ...]) -> SoundDataset:
        """The same sounds with other labels."""
        dataset = SoundDataset(with_classes(self.info, class_names), self.sounds, labels)
        dataset.keys = self.keys
        self._pass_on(dataset)
        return dataset
