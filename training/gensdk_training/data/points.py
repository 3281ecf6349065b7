"""Points in R^D in place of images: their data set, and ``.csv`` files of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
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
    plain_name,
)
from gensdk_training.family import DataInfo, PointsInfo

LABEL_COLUMNS = ("label", "labels", "y", "class", "target")
MAX_CSV_BYTES = 1 << 30
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
        digest = hashlib.blake2b(str(points.shape).encode(), digest_size=16)
        for array in (points, labels):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        super().__init__(info, digest.hexdigest())
        self.points = points
        self._labels = labels
        assert info.points is not None  # noqa: S101 - who makes one says so
        center = np.array(info.points.center, np.float64)
        self._scaled = ((points - center) / info.points.scale).astype(np.float32)

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
        return PointDataset(kept, self.points[indices], labels)


def point_dataset(
    name: str,
    points: Points,
    labels: Labels | None,
    class_names: tuple[str, ...] | None,
    statistics: PointsInfo,
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
    return point_dataset(name, points, classes, names, statistics)


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


def load_csv(path: Path, options: LoadOptions) -> PointDataset:
    """Numbers with commas between, a point a line; a header may name the columns.

    ``labels="auto"`` takes a column called ``label`` (or ``y``, ``class``, ``target``) for the class of each
    point, any other value the column of that name; all other columns are dimensions. Raises :class:`InputError`
    for what is no such table.
    """
    try:
        size = path.stat().st_size
        if size > MAX_CSV_BYTES:
            raise InputError(f"{path}: {size} bytes, at most {MAX_CSV_BYTES} are read; split it, or write an .npz")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        lines = [line for line in lines if line.strip()]
        header = _header(lines[0]) if lines else []
        rows = lines[1:] if header else lines
        if not rows:
            raise InputError(f"{path}: there are no points in it; expected a line of numbers for each")
        column = _label_column(path, header, options)
        width = len(rows[0].split(","))
        kept = [position for position in range(width) if position != column]
        array = np.loadtxt(rows, delimiter=",", usecols=kept, ndmin=2, comments=None, dtype=np.float64)
        labels = None if column is None else _labels(rows, column)
    except (OSError, ValueError, MemoryError) as failure:
        if isinstance(failure, InputError):
            raise
        problem = str(failure).splitlines()[0][:120] if str(failure) else type(failure).__name__
        raise InputError(f"{path}: no table of numbers with commas between ({problem}); write it again") from None
    if any(line.count(",") != width - 1 for line in lines):  # loadtxt passes over what lies beyond its columns
        raise InputError(f"{path}: expected {width} columns in each line; some have more or fewer")
    return points_from_array(plain_name(path.stem), array, labels, options, what=path.name)


def _checked(array: NDArray[Any], what: str) -> Points:
    if array.ndim != 2 or 0 in array.shape or array.shape[1] > MAX_DIMENSIONS:
        raise InputError(
            f"{what}: expected points [n, D] of 1 .. {MAX_DIMENSIONS} dimensions, got {list(array.shape)}"
        )
    if not np.isfinite(array).all() or float(np.abs(array).max()) > MAX_VALUE:
        raise InputError(f"{what}: has NaN, infinite or huge values; remove those points")
    return np.ascontiguousarray(array, np.float32)


def _header(line: str) -> list[str]:
    """The names of the columns; none where the first line holds numbers already."""
    names = [name.strip().strip('"') for name in line.split(",")]
    try:
        [float(name) for name in names]
    except ValueError:
        return names
    return []


def _label_column(path: Path, header: list[str], options: LoadOptions) -> int | None:
    wanted = LABEL_COLUMNS if options.labels == "auto" else (options.labels,)
    found = next((header.index(name) for name in wanted if name in header), None)
    if found is None and options.labels not in ("auto", "none"):
        raise InputError(
            f"{path}: no column {options.labels!r}; its columns are {', '.join(header[:20]) or 'unnamed'}"
        )
    if options.labels == "none":  # it is no dimension either
        return next((header.index(name) for name in LABEL_COLUMNS if name in header), None)
    return found


def _labels(rows: list[str], column: int) -> NDArray[Any]:
    texts = np.array([row.split(",")[column].strip() for row in rows])
    return texts.astype(np.int64) if all(text.isascii() and text.isdigit() for text in texts.tolist()) else texts
