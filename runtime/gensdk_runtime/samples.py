"""The typed result of sampling."""

from __future__ import annotations

import io
import json
import operator
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_path, check_whole, check_word
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.images import SUFFIXES, encode_image, image_grid, write_atomically
from gensdk_runtime.media.value_range import to_floats, to_uint8
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.outputs.points import csv_bytes, scatter

Layout = Literal["auto", "image", "grid", "folder"]
NUMBERED = re.compile(r"[0-9]{5,}\.png")
SHOWN = 64
"""Images that a notebook shows."""
MAX_COLUMNS, MAX_SCALE = 10_000, 64
LAYOUTS: tuple[str, ...] = get_args(Layout)


@dataclass(frozen=True)
class Timings:
    """Seconds: the whole call, the part of it spent inside graphs, and each batch."""

    total: float
    graphs: float
    batches: tuple[float, ...]


@dataclass(frozen=True, repr=False, eq=False)
class Samples:
    """Samples in order.

    `data`: what was drawn, float32 [n, C, H, W] in the model's own `value_range`, or with
    ``output_type="uint8"`` uint8 [n, H, W, C]; :attr:`array` and :attr:`images` give either form. Of a model of
    points it is float32 [n, D], which :attr:`array` and :attr:`points` give. `seeds`: a
    (seed, position) pair for each sample, which ``sample(seed=[...])`` takes back. `labels`: int64 [n], where
    the number of classes itself stands for "no class"; None for a model without classes. `settings`:
    everything needed to draw them again, as plain JSON. `stopped`: a callback ended the run early; the array
    then holds the samples that had begun, as far as they had come.
    """

    data: NDArray[np.float32] | NDArray[np.uint8]
    seeds: tuple[SampleKey, ...]
    labels: NDArray[np.int64] | None
    value_range: tuple[float, float]
    settings: Mapping[str, Any]
    timings: Timings
    stopped: bool = field(default=False)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, which: int | slice) -> Samples:
        """Sample `which` alone, or those of a slice, with the settings that draw them again."""
        if isinstance(which, slice):
            places = range(len(self))[which]
        else:
            at = operator.index(which)
            if not -len(self) <= at < len(self):
                raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {at}")
            places = range(at % len(self), at % len(self) + 1)
        chosen = list(places)
        labels = None if self.labels is None else self.labels[chosen]
        told = None if labels is None or self.settings.get("labels") is None else labels.tolist()
        seeds = tuple(self.seeds[place] for place in chosen)
        settings = {**self.settings, "n": len(chosen), "seeds": [list(key) for key in seeds], "labels": told}
        return replace(self, data=self.data[chosen], seeds=seeds, labels=labels, settings=settings)

    def __iter__(self) -> Iterator[Samples]:
        return (self[place] for place in range(len(self)))

    def __repr__(self) -> str:
        axes = self.data.shape[1:]
        if self.are_points:
            kind = f"points of {axes[0]} dimensions"
        else:
            height, width = axes[:2] if self.data.dtype == np.uint8 else axes[1:]
            kind = f"images of {width} x {height}"
        first = f", from seed {self.seeds[0].seed}" if self.seeds else ""
        model = self.settings.get("model", "a model")
        return f"<Samples: {len(self)} {kind}, of {model}{first}, in {self.timings.total:.3g} s>"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: a grid of the first samples, or the points; None where there is no picture."""
        if not len(self) or not (self.are_points or self.images.shape[3] in (1, 3, 4)):
            return None
        shown = self if self.are_points else self[:SHOWN]
        return encode_image(shown.picture(), ".png", {})

    @cached_property
    def array(self) -> NDArray[np.float32]:
        """float32 [n, C, H, W] in `value_range`; of samples drawn as bytes, on 256 levels. Points: [n, D]."""
        if self.data.dtype == np.float32:
            return self.data  # type: ignore[return-value]
        return to_floats(self.data, self.value_range)  # type: ignore[arg-type]

    @property
    def are_points(self) -> bool:
        """Whether these are points, and not images."""
        return self.data.ndim == 2

    @property
    def points(self) -> NDArray[np.float32]:
        """float32 [n, D], in the units of the model's data; :class:`InputError` for images."""
        if not self.are_points:
            raise InputError("these samples are images; take images, or array")
        return self.array

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [n, H, W, C], the value range mapped to 0 .. 255; :class:`InputError` for points."""
        if self.are_points:
            raise InputError("these samples are points, which have no pixels; take points, or picture() of them")
        if self.data.dtype == np.uint8:
            return self.data  # type: ignore[return-value]
        return to_uint8(self.array, self.value_range)

    def picture(self, *, columns: int | None = None, scale: int | None = None) -> NDArray[np.uint8]:
        """All samples as one picture, uint8 [H, W, C]: a grid of images, or points where they lie.

        `columns` and `scale` as in :meth:`save`, for images only.
        """
        if self.are_points:
            return scatter(self.points, self.value_range, self.labels)
        _check_layout(columns, scale)
        return image_grid(self.images, columns=columns, scale=scale)

    def save(
        self,
        path: str | Path,
        *,
        layout: Layout = "auto",
        columns: int | None = None,
        scale: int | None = None,
    ) -> Path:
        """Writes the samples and returns the path.

        ``x.png`` (or .jpg, .webp, .bmp, .tif): one image, or a grid of several, enlarged for the eye unless
        `scale` says otherwise. ``x.npz``: arrays ``array``, ``images``, ``seeds``, ``labels`` and ``settings``
        (JSON). A path without a suffix: a folder of single PNGs, which may hold none of an earlier run. PNGs
        carry the settings as metadata.

        Points: a picture of where they lie; an ``.npz`` without ``images``; or ``x.csv``, columns ``x0``, ``x1``,
        ..., and ``label``. `layout`, `columns` and `scale` are for images. Files are written beside the target and
        renamed. Raises :class:`InputError` for an unknown suffix or layout, for `columns` or `scale` below 1, for
        no samples and where the disk refuses.
        """
        check_word(layout, "layout", LAYOUTS)
        _check_layout(columns, scale)
        target = check_path(path, "path")
        if not len(self):
            raise InputError("there are no samples to save; draw at least one")
        if self.are_points:
            if layout != "auto" or columns is not None or scale is not None:
                raise InputError("layout, columns and scale are for images, and these are points; leave them out")
            write_atomically(target, self._encoded_points(target))
            return target
        kind = self._layout(target, layout)
        if kind == "npz":
            write_atomically(target, self._npz())
        elif kind == "folder":
            if target.is_dir():
                check_no_pictures(target)
            for i in range(len(self)):
                data = encode_image(self._scaled(i, scale or 1), ".png", self._settings_of(i))
                write_atomically(target / f"{i:05d}.png", data)
        else:
            grid = kind == "grid"
            image = self.picture(columns=columns, scale=scale) if grid else self._scaled(0, scale or 1)
            settings = self._settings_of(None if grid else 0)
            write_atomically(target, encode_image(image, target.suffix.lower(), settings))
        return target

    def _encoded_points(self, target: Path) -> bytes:
        check_target(target, points=True)
        suffix = target.suffix.lower()
        if suffix == ".npz":
            return self._npz()
        if suffix == ".csv":
            labels = None if self.labels is None or self.settings.get("labels") is None else self.labels
            return csv_bytes(self.points, labels)
        return encode_image(self.picture(), suffix, self.settings)

    def _layout(self, target: Path, layout: Layout) -> str:
        suffix = target.suffix.lower()
        if suffix == ".npz":
            return "npz"
        if layout == "auto":
            check_target(target)
            if target.is_dir() or not suffix:
                return "folder"
            return "image" if len(self) == 1 else "grid"
        if layout == "image" and len(self) != 1:
            raise InputError(f"layout 'image' takes one sample, got {len(self)}; use 'grid' or 'folder'")
        return layout

    def _scaled(self, i: int, scale: int) -> NDArray[np.uint8]:
        enlarged: NDArray[np.uint8] = self.images[i].repeat(scale, axis=0).repeat(scale, axis=1)
        return enlarged

    def _settings_of(self, i: int | None) -> dict[str, Any]:
        if i is None:
            return dict(self.settings)
        seeds = [list(self.seeds[i])]
        labels = None if self.labels is None or self.settings.get("labels") is None else [int(self.labels[i])]
        return {**self.settings, "n": 1, "seeds": seeds, "labels": labels}

    def _npz(self) -> bytes:
        arrays: dict[str, Any] = {
            "array": self.array,
            **({} if self.are_points else {"images": self.images}),
            "seeds": np.array(self.seeds, np.uint64).reshape(-1, 2),
            "settings": np.array(json.dumps(dict(self.settings))),
        }
        if self.labels is not None:
            arrays["labels"] = self.labels
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()


def _check_layout(columns: int | None, scale: int | None) -> None:
    for name, count, most in (("columns", columns, MAX_COLUMNS), ("scale", scale, MAX_SCALE)):
        if count is not None:
            check_whole(count, name, least=1, most=most)


def check_target(path: str | Path, *, points: bool = False, others: Sequence[str] = ()) -> None:
    """Raises :class:`InputError` where :meth:`Samples.save` could not write; ask before drawing for long.

    The suffix must be known, for images or for `points`, the nearest folder that exists must be one that can be
    written to, and a folder of pictures must hold none from before. `others`: suffixes that the caller writes
    itself, which a message names too.
    """
    target = check_path(path, "a path")
    suffix = target.suffix.lower()
    if points and (suffix not in (*SUFFIXES, ".npz", ".csv") or target.is_dir()):
        raise InputError(
            f"can't write points to {target}; use a file with one of {', '.join(SUFFIXES)}, .npz, .csv"
        )
    if not points and suffix and suffix not in (*SUFFIXES, ".npz") and not target.is_dir():
        known = ", ".join((*SUFFIXES, *others))
        raise InputError(f"can't write {suffix} files; use one of {known}, .npz or a folder")
    check_folder(target)
    if target.is_dir():
        check_no_pictures(target)


def check_no_pictures(folder: Path) -> None:
    """Raises :class:`InputError` where numbered pictures of an earlier run would stand among the new ones."""
    try:
        older = sorted(file.name for file in folder.iterdir() if NUMBERED.fullmatch(file.name))
    except OSError as failure:
        raise InputError(f"can't read {folder}: {failure.strerror or failure}") from None
    if older:
        pictures = f"{len(older)} picture" + ("" if len(older) == 1 else "s")
        raise InputError(
            f"{folder} holds {pictures} of an earlier run ({older[0]}); choose a new folder, or remove them"
        )


def check_folder(target: Path) -> None:
    """Raises :class:`InputError` unless the nearest folder of `target` that exists can be written to."""
    standing = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    if standing != target and not standing.is_dir():
        raise InputError(f"can't write {target}: {standing} is a file, not a folder")
    if not os.access(standing, os.W_OK):
        raise InputError(f"can't write {target}: no permission to write to {standing}")
