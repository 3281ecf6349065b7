"""Arrays side by side on the host and on the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.cuda.device import DeviceMemory, PinnedArray, Stream
from gensdk_runtime.backends.cuda.resident import GpuArray

ALIGNED = 256
"""Bytes between whose multiples the GPU's arrays begin, as memory of its own would."""


class Block:
    """Arrays side by side, on the host and on the GPU, so that some that are neighbours pass in one copy.

    Raises as :class:`DeviceMemory` and :class:`PinnedArray`.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.offsets: dict[str, int] = {}
        self._sizes: Mapping[str, int] = {}
        self.lay_out(sizes)
        size = max(1, self._end())
        self._host = PinnedArray((size,), "uint8")
        self.device = DeviceMemory(size)
        self._here: set[str] = set()
        self.sent = 0  # the stream's mark after the last time

    @property
    def nbytes(self) -> int:
        """Bytes on both sides."""
        return 2 * self.device.size

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """True where arrays of these sizes have room."""
        return sum(_aligned(size) for size in sizes.values()) <= self.device.size

    def lay_out(self, sizes: Mapping[str, int]) -> None:
        """One after another, in their order."""
        self._sizes, end = dict(sizes), 0
        self.offsets = {}
        for name, size in sizes.items():
            self.offsets[name] = end
            end += _aligned(size)

    def host_array(self, name: str, shape: tuple[int, ...], dtype: object) -> Array:
        """The host's part of it."""
        first = self.offsets[name]
        part: Array = self._host.array[first : first + self._sizes[name]]
        return part.view(np.dtype(dtype)).reshape(shape)  # type: ignore[call-overload]

    def send(self, stream: Stream) -> None:
        """All of it to the GPU."""
        stream.upload_part(self._host, self.device, 0, self._end())
        self.sent = stream.mark_uploads()

    def gpu_array(self, name: str, shape: tuple[int, ...], dtype: Any, stream: Stream) -> GpuArray:
        """The GPU's part of it, used in the order of `stream`."""
        return GpuArray(self.device, self.device.address + self.offsets[name], shape, dtype, stream)

    def changed(self) -> None:
        """The GPU wrote anew."""
        self._here.clear()

    def bring(self, stream: Stream, names: list[str]) -> bool:
        """Copies these arrays, with what lies between them, and waits; False where all are here already."""
        if all(name in self._here for name in names):
            return False
        first = min(self.offsets[name] for name in names)
        last = max(self.offsets[name] + self._sizes[name] for name in names)
        stream.download_part(self.device, self._host, first, last - first)
        self._here |= {name for name, at in self.offsets.items() if first <= at and at + self._sizes[name] <= last}
        return True

    def bring_back(self, stream: Stream, array: GpuArray) -> Array | None:
        """Copies what lies in one piece in this block to the host's part of it, and waits; None for all else."""
        plane = array.plane()
        first = plane.address - self.device.address
        if plane.rows != 1 or not 0 <= first <= self.device.size - plane.width:
            return None
        stream.download_part(self.device, self._host, first, plane.width)
        part: Array = self._host.array[first : first + plane.width]
        return part.view(array.dtype).reshape(array.shape)

    def _end(self) -> int:
        return max((at + _aligned(self._sizes[name]) for name, at in self.offsets.items()), default=0)


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
