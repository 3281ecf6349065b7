"""A few images, or sounds, that data are made from, kept with the run: for previews and golden trajectories."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gensdk_runtime.bundles.arrays_file import read_npz
from gensdk_runtime.errors import InputError
from gensdk_runtime.host.own_files import read_own
from gensdk_runtime.media.images import image_grid, write_atomically
from gensdk_runtime.media.value_range import to_uint8

COUNT = 16
FILE = "examples.npz"
MAX_BYTES = 1 << 30

Images = NDArray[np.uint8]
Sounds = NDArray[np.float32]
IMAGE_AXES, SOUND_AXES = 4, 2


@dataclass(frozen=True)
class Examples:
    """`sources` uint8 [n, H, W, C], or sounds float32 [n, samples], and where it is known what they should become:
    `targets` uint8 [n, H', W', C']. `heard`: float32 [n, samples], the sound that goes with each image."""

    sources: Images | Sounds
    targets: Images | None = None
    heard: Sounds | None = None

    @property
    def asked(self) -> str:
        """The argument of :meth:`Generator.sample` that takes the sources."""
        return "image" if self.sources.ndim == IMAGE_AXES else "audio"

    @property
    def arguments(self) -> dict[str, Images | Sounds]:
        """All that they are to :meth:`Generator.sample`, by argument."""
        return {self.asked: self.sources} | ({} if self.heard is None else {"audio": self.heard})

    @classmethod
    def of(cls, sources: Tensor, targets: Tensor | None, heard: Tensor | None = None) -> Self:
        """From batches float32 [B, C, H, W] in [-1, 1], and what is heard with them [B, samples]."""
        sound = None if heard is None else heard.detach().cpu().numpy()
        return cls(_bytes(sources), None if targets is None else _bytes(targets), sound)

    @classmethod
    def of_sounds(cls, sounds: Tensor, targets: Tensor) -> Self:
        """From batches [B, samples, 1], and images float32 [B, C, H, W] in [-1, 1] of the same classes."""
        return cls(sounds[..., 0].detach().cpu().numpy(), _bytes(targets))

    def save(self, folder: Path) -> None:
        """Writes ``examples.npz`` into a run's folder, whole or not at all."""
        buffer = io.BytesIO()
        given = {"sources": self.sources, "targets": self.targets, "heard": self.heard}
        arrays = {name: array for name, array in given.items() if array is not None}
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomically(folder / FILE, buffer.getvalue())

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """What :meth:`save` wrote; None where there is none. Raises :class:`InputError` for a damaged file."""
        path = folder / FILE
        try:
            data = read_own(path, limit=MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as failure:
            raise InputError(f"{path} can't be read ({failure.strerror}); remove it") from None
        arrays = read_npz(data, limit_bytes=MAX_BYTES, what=str(path))
        sources, targets, beside = arrays.get("sources"), arrays.get("targets"), arrays.get("heard")
        if sources is None:
            raise InputError(f"{path}: no array 'sources' in it; remove it")
        heard = sources.dtype == np.float32 and sources.ndim == SOUND_AXES and sources.size > 0
        for images in (targets,) if heard else (sources, targets):
            if images is not None and (images.dtype != np.uint8 or images.ndim != IMAGE_AXES or not images.size):
                raise InputError(f"{path}: expected images uint8 [n, H, W, C], got {images.dtype}; remove it")
        if beside is not None and (beside.dtype != np.float32 or beside.shape[:1] != sources.shape[:1]):
            raise InputError(f"{path}: expected sounds float32 [n, samples], got {beside.dtype}; remove it")
        return cls(sources, targets, beside)

    def picture(self, results: Images) -> Images:
        """One grid, uint8 [H, W, 3]: each source that is an image beside its result [n, H', W', C'], and beside
        the target."""
        before = [self.sources.astype(np.uint8, copy=False)] if self.asked == "image" else []
        columns = [*before, results] + ([] if self.targets is None else [self.targets])
        height, width = (max(images.shape[axis] for images in columns) for axis in (1, 2))
        rows = [_stretched(images[: len(results)], height, width) for images in columns]
        joined: Images = np.concatenate(rows, axis=2)
        return image_grid(joined)


def _stretched(images: Images, height: int, width: int) -> Images:
    """To the same size, each pixel repeated; to three channels."""
    rows = np.arange(height) * images.shape[1] // height
    columns = np.arange(width) * images.shape[2] // width
    larger: Images = images[:, rows][:, :, columns]
    return larger if larger.shape[3] == 3 else larger[..., :1].repeat(3, axis=3)


def _bytes(images: Tensor) -> Images:
    return to_uint8(images.detach().cpu().numpy(), (-1.0, 1.0))
