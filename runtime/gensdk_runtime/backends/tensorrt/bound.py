"""An engine over a graph's buffers on the GPU."""

from __future__ import annotations

from collections.abc import Callable

from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Carry, Sizes
from gensdk_runtime.backends.cuda.bound import GpuBound
from gensdk_runtime.backends.cuda.device import DeviceMemory
from gensdk_runtime.backends.cuda.noise_kernels import NoiseKernels
from gensdk_runtime.backends.tensorrt.engine import Lane, LoadedEngine


class TensorRtBound(GpuBound):
    """An engine at fixed sizes, with a :class:`Lane` for each turn of the states that are carried."""

    def __init__(
        self,
        session: Session,
        engine: LoadedEngine,
        sizes: Sizes,
        carry: Carry,
        *,
        kernels: NoiseKernels,
        used: Callable[[], None],
    ) -> None:
        super().__init__(session, sizes, carry, kernels=kernels, used=used)
        self._lanes = [
            Lane(engine, engine.context(sizes, self._stream), self._addresses(turn), self._stream)
            for turn in range(2 if self.carry else 1)
        ]
        self._scratch = DeviceMemory(max(lane.memory_needed() for lane in self._lanes))
        for lane in self._lanes:
            lane.use_memory(self._scratch)

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Bytes that it holds, on both sides."""
        return super().nbytes + self._scratch.size

    @property
    def _records(self) -> bool:
        used = [lane for lane in self._lanes if lane.has_run]
        return bool(used) and all(lane.is_capturable for lane in used)

    def _launch(self, turn: int) -> None:
        self._lanes[turn % len(self._lanes)].launch(recording=self.recording)

    def close(self) -> None:
        """Waits for the GPU, then frees its memory."""
        self._stream.drain()
        for lane in self._lanes:
            lane.close()
        self._scratch.close()
        super().close()
