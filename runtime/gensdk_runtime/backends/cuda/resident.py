"""Arrays in the GPU's memory: cut as NumPy's are, copied among themselves, and brought to the host when asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from gensdk_runtime.backends.bound import Array
from gensdk_runtime.backends.cuda.device import Plane, Stream
from gensdk_runtime.errors import BackendError


class GpuArray:
    """`shape` elements of `dtype` at `address`, in memory that `owner` frees; used in the order of `stream`.

    NumPy does the arithmetic of shapes and strides on an array that it must never read: its address is the GPU's.
    """

    def __init__(self, owner: object, address: int, shape: tuple[int, ...], dtype: Any, stream: Stream) -> None:
        described = {"data": (address, False), "shape": shape, "typestr": np.dtype(dtype).str, "version": 3}
        self._part: Array = np.asarray(SimpleNamespace(__array_interface__=described))
        self._owner, self.stream = owner, stream

    def __repr__(self) -> str:
        return f"<GpuArray: {self.dtype} {list(self.shape)}>"

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError("an array on the GPU is brought by Bound.fetch()")

    @property
    def shape(self) -> tuple[int, ...]:
        """As NumPy's."""
        return self._part.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As NumPy's."""
        return self._part.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self._part.nbytes

    def __getitem__(self, where: Any) -> GpuArray:
        """The part that numbers and slices cut out, in the same memory."""
        part = GpuArray.__new__(GpuArray)
        wanted = (where,) if not isinstance(where, tuple) else where
        part._part = self._part[(*wanted, ...)] if ... not in wanted else self._part[wanted]
        part._owner, part.stream = self._owner, self.stream
        return part

    def __setitem__(self, where: Any, values: Any) -> None:
        """Copies another array of this GPU, of the same shape and dtype; in the order of both streams."""
        target = self[where]
        if not isinstance(values, GpuArray):
            raise TypeError(f"expected an array on the GPU, got {type(values).__name__}; Bound.upload() makes one")
        if (values.shape, values.dtype) != (target.shape, target.dtype):
            raise ValueError(f"can't copy {values!r} into {target!r}")
        self.stream.after(values.stream)
        self.stream.copy(target.plane(), values.plane())
        values.stream.after(self.stream)  # which may change it next

    def fill(self, value: float) -> None:
        """Zeros, which alone are the same bytes in every type."""
        if value != 0:
            raise ValueError(f"expected 0, got {value}; an array on the GPU is filled from another one")
        self.stream.clear(self.plane())

    def plane(self) -> Plane:
        """Its memory as rows of bytes at equal distances; :class:`BackendError` for a cut that is none."""
        part = self._part
        if part.size == 0:
            return Plane(0, 0, 0, 0)
        address = int(part.__array_interface__["data"][0])
        axes = [(size, stride) for size, stride in zip(part.shape, part.strides, strict=True) if size > 1]
        width = part.itemsize
        while axes and axes[-1][1] == width:
            width *= axes.pop()[0]
        if not axes:
            return Plane(address, width, width, 1)
        rows, pitch = axes.pop()
        while axes:
            size, stride = axes.pop()
            if stride != rows * pitch:
                raise BackendError(
                    f"can't copy a cut of {list(part.shape)} with strides {list(part.strides)} at once"
                )
            rows *= size
        if pitch < width:
            raise BackendError(f"can't copy a cut of {list(part.shape)} whose rows overlap or run backwards")
        return Plane(address, width, pitch, rows)
