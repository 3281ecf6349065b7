"""Points in R^D in place of images."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_training.data.arrays import to_labels
from gensdk_training.data.dataset import (
    Dataset,
    ImageBatch,
    Labels,
    LoadOptions,
    Points,
    holdout_indices,
    with_classes,
)
from gensdk_training.family import DataInfo, PointsInfo

MAX_DIMENSIONS = 4096
MAX_VALUE = 1e15
"""Larger values, and points that lie closer together than float32 can tell, are refused."""
ROOM = 0.1
"""Part of the data's width that plots show around it."""


class PointDataset(Dataset):
    """Points in memory: `points` float32 [N, D] in the data's units, `labels` int64 [N] or None.

    :meth:`batch` gives them scaled, as :class:`gensdk_training.family.PointsInfo` says.
    """

    def __init__(self, info: DataInfo, points: Points, labels: Labels | None) -> None:
        super().__init__(info, None)
        self.points = points
        self._labels = labels
        unit = info.require_points()
        self._scaled = ((points - np.array(unit.center, np.float64)) / unit.scale).astype(np.float32)

    def _digest(self) -> str:
        digest = hashlib.blake2b(str(self.points.shape).encode(), digest_size=16)
        for array in (self.points, self._labels):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def batch(self, indices: NDArray[np.int64]) -> ImageBatch:
        """The scaled points at `indices`; a copy."""
        return ImageBatch(self._scaled[indices], None if self._labels is None else self._labels[indices])

    @property
    def labels(self) -> Labels | None:
        """The class of each point, int64 [N]; None without labels."""
        return self._labels

    def take(self, indices: NDArray[np.int64]) -> PointDataset:
        """A data set of the points at `indices`, scaled as all of them are."""
        labels = None if self._labels is None else self._labels[indices]
        kept = self.info.model_copy(update={"count": len(indices)})
        dataset = PointDataset(kept, self.points[indices], labels)
        self._pass_on(dataset)
        return dataset

    def relabelled(self, labels: Labels, class_names: tuple[str, ...]) -> PointDataset:
        """The same points with other labels."""
        dataset = PointDataset(with_classes(self.info, class_names), self.points, labels)
        self._pass_on(dataset)
        return dataset


def point_dataset(
    name: str, points: Points, labels: Labels | None, class_names: tuple[str, ...] | None, statistics: PointsInfo
) -> PointDataset:
    """`points` float32 [N, D] with their labels, as a data set."""
    info = DataInfo(
        name=name,
        channels=points.shape[1],
        height=1,
        width=1,
        count=len(points),
        num_classes=len(class_names) if class_names else None,
        class_names=class_names,
        points=statistics,
    )
    return PointDataset(info, points, labels)


def points_from_array(
    name: str, array: NDArray[Any], labels: NDArray[Any] | None, options: LoadOptions, *, what: str
) -> PointDataset:
    """The part of `array` [N, D] that `options` name, with statistics of all of it.

    Raises :class:`InputError` for another shape, NaN, and options that are for images.
    """
    check_options(options)
    points = _checked(array, what)
    classes, names = None, None
    if labels is not None and options.labels != "none":
        classes, names = to_labels(labels, len(points), what)
    statistics = points_info(points, what)
    if options.holdout > 0 or options.split == "test":
        chosen = holdout_indices(len(points), options.holdout, options.split)
        points, classes = points[chosen], None if classes is None else classes[chosen]
    dataset = point_dataset(name, points, classes, names, statistics)
    dataset.findings.values = f"{array.dtype} from {float(array.min()):g} to {float(array.max()):g}"
    return dataset


def points_info(points: Points, what: str) -> PointsInfo:
    """The statistics of `points` [N, D]; :class:`InputError` where all of them are one."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    center, scale = (low + high) / 2, float((high - low).max()) / 2
    if not scale > 1e-6 * max(1e-20, float(np.abs(center).max())):
        raise InputError(f"{what}: all points are the same, or too close for float32; expected points that differ")
    room = ROOM * scale
    return PointsInfo(
        center=tuple(center.tolist()), scale=scale, value_range=(float(low.min()) - room, float(high.max()) + room)
    )


def check_options(options: LoadOptions) -> None:
    """Raises :class:`InputError` for options of images."""
    if options.size is not None or options.channels is not None:
        raise InputError("size and channels are for images, and these data are points; leave them out")
    if options.value_range is not None:
        raise InputError("a value range is for images, and these data are points; leave it out")


def _checked(array: NDArray[Any], what: str) -> Points:
    if array.ndim != 2 or 0 in array.shape or array.shape[1] > MAX_DIMENSIONS:
        raise InputError(
            f"{what}: expected points [n, D] of 1 .. {MAX_DIMENSIONS} dimensions, got {list(array.shape)}"
        )
    if not np.isfinite(array).all() or float(np.abs(array).max()) > MAX_VALUE:
        raise InputError(f"{what}: has NaN, infinite or huge values; remove those points")
    return np.ascontiguousarray(array, np.float32)
