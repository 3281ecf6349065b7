"""Pairs of a sound and what is made from it, by class: each image of a class may go with each sound of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_training.data.classes import among, as_classes
from gensdk_training.data.dataset import Dataset, ImageBatch, Labels, text_fingerprint
from gensdk_training.data.sound_set import SoundDataset
from gensdk_training.family import CLASS_JOIN, SourceInfo

_PAIR_STREAM = 7 << 61
"""Keeps the keys apart from those of noise, order, augmentation and parts of sounds."""


class SoundsOfClasses(Dataset):
    """The sounds that go with images: to each, by its place among them, one of its class.

    `sounds`, in classes as those of the images; `labels` int64 [N]: the class of each image.
    """

    def __init__(self, sounds: SoundDataset, labels: Labels) -> None:
        super().__init__(sounds.info, sounds.fingerprint)
        self.sounds, self._of_images = sounds, labels
        known = sounds.labels
        if known is None:
            raise InputError(f"{sounds.info.name!r} has no classes, by which sounds and images are pairs")
        self._places = [np.flatnonzero(known == label) for label in range(sounds.info.num_classes or 0)]
        self.skipped, self.findings = sounds.skipped, sounds.findings

    def __len__(self) -> int:
        return len(self._of_images)

    @property
    def labels(self) -> Labels:
        """The class of each image, int64 [N]."""
        return self._of_images

    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """A sound for each image: those of a class in turn."""
        return self.sounds.batch(self._chosen(indices, indices.tolist()))

    def training_batch(self, indices: NDArray[np.int64], *, seed: int, first: int) -> ImageBatch:
        """Any sound of the class for each image, as `seed` and its place in the run's order decide; of longer ones
        a part."""
        turns = []
        for place in range(first, first + len(indices)):
            key = np.array([seed, _PAIR_STREAM | place], np.uint64)
            turns.append(int(np.random.Generator(np.random.Philox(key=key)).integers(2**32)))
        return self.sounds.training_batch(self._chosen(indices, turns), seed=seed, first=first)

    def _chosen(self, indices: NDArray[np.int64], turns: Sequence[int]) -> NDArray[np.int64]:
        """The places of sounds: of each image's class the one of this number, round and round."""
        found = [
            places[turn % len(places)]
            for turn, places in zip(
                turns, (self._places[label] for label in self._of_images[indices]), strict=True
            )
        ]
        return np.array(found, np.int64)

    def take(self, indices: NDArray[np.int64]) -> SoundsOfClasses:
        """Those that go with the images at `indices`."""
        return SoundsOfClasses(self.sounds, self._of_images[indices])

    def relabelled(self, labels: Labels, class_names: tuple[str, ...]) -> Dataset:
        """Refused: the classes are those of the images."""
        raise InputError("sounds that go with images have their classes; choose others where both are opened")


def with_sounds(dataset: Dataset, sounds: Dataset, *, test: bool = False, unheard: str | None = None) -> Dataset:
    """`dataset` of images with sounds of the same classes as what it is made from. Ends both.

    Classes are found by name; where those of the sounds are made of parts, as "7-theo" is a digit and a speaker,
    by the part whose values are classes of the images. Images and sounds without a partner are left out, and told.
    `unheard`: a value of another part, such as "theo", whose sounds are no part of training and all of the `test`.
    Raises :class:`InputError` where there are no such classes or values.
    """
    if not isinstance(sounds, SoundDataset) or not dataset.info.on_a_grid:
        raise InputError(f"sounds go with images, and {dataset.info.name!r} are {dataset.info.kind}; change them")
    own = dataset.info.class_names
    if dataset.labels is None or own is None:
        raise InputError(
            f"{dataset.info.name!r} has no classes, by which sounds and images are pairs; bring labels"
        )
    if unheard is not None:
        sounds = _heard(sounds, unheard, test=test)
    sounds = _by_part(sounds, own)
    shared = [name for name in own if name in (sounds.info.class_names or ())]
    alone, others = len(dataset), len(sounds)
    dataset, kept = among(dataset, shared or own), among(sounds, own)
    alone, others = alone - len(dataset), others - len(kept)
    kept = as_classes(kept, dataset.info.class_names or ())
    if not isinstance(kept, SoundDataset) or dataset.labels is None:
        raise TypeError("sounds stay sounds")
    pairs = SoundsOfClasses(kept, dataset.labels)
    audio = kept.info.require_audio()
    before, earlier = dataset.fingerprint, dataset.earlier
    dataset.sources = pairs
    dataset.info = dataset.info.model_copy(
        update={
            "source": SourceInfo(
                channels=1, height=kept.info.height, width=1, count=len(kept), paired=True, audio=audio
            )
        }
    )
    dataset.fingerprint = text_fingerprint([before, kept.fingerprint])
    dataset.earlier = tuple(text_fingerprint([each, kept.fingerprint]) for each in earlier)
    dataset.skipped.absorb(kept.skipped)
    if split := sounds.findings.split:
        dataset.findings.note(f"inputs: {split}")
    how = f"each image with any of the {len(kept)} sounds of its class"
    if alone or others:
        how += f"; left out: {alone} images and {others} sounds, of classes that the others don't have"
    dataset.findings.pairs = how
    return dataset


def _by_part(sounds: SoundDataset, names: Sequence[str]) -> SoundDataset:
    """`sounds` in classes of the one part whose values are `names`, where their classes are made of parts."""
    for at, part in enumerate(sounds.info.require_audio().parts):
        if set(part.values) & set(names):
            said, numbers = np.unique(np.array([values[at] for values in _values(sounds)]), return_inverse=True)
            made = sounds.relabelled(numbers.reshape(-1).astype(np.int64), tuple(map(str, said.tolist())))
            audio = made.info.require_audio().model_copy(update={"parts": ()})
            made.info = made.info.model_copy(update={"audio": audio})
            return made
    return sounds


def _heard(sounds: SoundDataset, value: str, *, test: bool) -> SoundDataset:
    """The sounds of a value of a part alone for the test; for training all others."""
    known = [each for part in sounds.info.require_audio().parts for each in part.values]
    if value not in known:
        none = "the classes of these sounds have no parts" if not known else did_you_mean(value[:80], known)[2:]
        raise InputError(f"no {value[:80]!r} among what the classes of {sounds.info.name!r} say; {none}")
    chosen = [at for at, values in enumerate(_values(sounds)) if (value in values) == test]
    if not chosen:
        raise InputError(f"{sounds.info.name!r} has no sounds but those of {value[:80]!r}; leave unheard out")
    kept = sounds.take(np.array(chosen, np.int64))
    kept.findings.note(f"unheard {value}: {'all of the test' if test else 'no part of training'}")
    return kept


def _values(sounds: SoundDataset) -> list[list[str]]:
    """What the class of each sound says, part by part."""
    labels, names = sounds.labels, sounds.info.class_names or ()
    return [] if labels is None else [names[label].split(CLASS_JOIN) for label in labels.tolist()]
