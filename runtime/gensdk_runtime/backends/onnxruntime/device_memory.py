"""Memory of a device that ONNX Runtime itself gives and copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gensdk_runtime.backends.bound import Array

NVIDIA = 0x10DE
"""NVIDIA's PCI vendor number, by which ONNX Runtime tells the memory of plugins apart."""


@dataclass(frozen=True)
class Memory:
    """Where tensors can stay between runs: the `device` in ONNX Runtime's words, the `vendor` of a plugin's."""

    device: str
    vendor: int | None = None

    def allocate(self, ort: Any, shape: Sequence[int], dtype: Any) -> Any:
        """An ``OrtValue`` there."""
        vendor = {} if self.vendor is None else {"vendor_id": self.vendor}
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self.device, 0, **vendor)

    def upload(self, ort: Any, array: Array, value: Any) -> None:
        """Copies `array` into `value`."""
        if self.vendor is None:
            value.update_inplace(array)
        else:  # builds without CUDA know no memory but the CPU's; the plugin copies
            ort.copy_tensors([ort.OrtValue.ortvalue_from_numpy(array)], [value])

    def download(self, ort: Any, value: Any, array: Array) -> None:
        """Copies `value` into `array`."""
        if self.vendor is None:
            array[...] = value.numpy()
        else:
            ort.copy_tensors([value], [ort.OrtValue.ortvalue_from_numpy(array)])
