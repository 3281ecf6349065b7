"""ONNX Runtime's CUDA and TensorRT providers over buffers that stay on the GPU, as engines have them.

Memory and streams are ours, through CUDA's runtime API; a session works in one stream of its own, and a run
returns when its work is in there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array, Bound, Carry, Sizes
from gensdk_runtime.backends.cuda.bound import GpuBound
from gensdk_runtime.backends.cuda.device import Stream, find_gpu
from gensdk_runtime.backends.cuda.noise_kernels import NoiseKernels
from gensdk_runtime.backends.cuda.room import frees_when_short, idle_bytes, with_room
from gensdk_runtime.backends.onnxruntime.captures import CapturedRuns, Captures
from gensdk_runtime.backends.onnxruntime.device_memory import NVIDIA
from gensdk_runtime.backends.onnxruntime.graph_runs import beginning, whole
from gensdk_runtime.backends.onnxruntime.session import OnnxRuntimeSession, said
from gensdk_runtime.errors import BackendError, OutOfMemoryError, UnavailableError
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec

_NO_MEMORY = re.compile(r"Failed to allocate memory for requested|out of memory|CUDA failure 2\b|_ALLOC_FAILED")


@dataclass(frozen=True)
class SessionOnGpu:
    """Where a session works: a `stream`, on a GPU with so many bytes of `memory`; its CUDA graphs, if it makes
    some, and what draws noise there."""

    ort: Any
    stream: Stream
    memory: int
    captures: Captures | None
    kernels: NoiseKernels

    def session(self, graph: GraphSpec, native: Any, *, backend: str, precision: Precision) -> CudaSession:
        """The session of a graph that was loaded with this stream."""
        return CudaSession(graph, native, self, backend=backend, precision=precision)


def on_gpu(ort: Any, graph: GraphSpec, kernels: NoiseKernels, *, graphs: bool) -> SessionOnGpu | None:
    """None where cuda-bindings is missing, or knows a newer CUDA than the driver: then inputs pass the host.

    Where CUDA `graphs` are wanted that raises :class:`UnavailableError` or :class:`BackendError`.
    """
    try:
        memory = find_gpu().memory
        captures = Captures(ort, graph.name) if graphs else None
        return SessionOnGpu(ort, Stream(), memory, captures, kernels)
    except (UnavailableError, BackendError):
        if graphs:
            raise
        return None


class CudaSession(OnnxRuntimeSession):
    """A graph on the GPU. Threads take turns in putting their runs into its stream, and each waits for its own.

    Where ONNX Runtime has an input or an output on the host, or does not say where (before 1.23), a run waits for
    what is before it and for itself: it copies them beside the stream.
    Where the GPU has no memory left, the buffers that no run uses are freed, those of other sessions too.
    """

    waits: ClassVar[bool] = False

    def __init__(
        self, graph: GraphSpec, native: Any, gpu: SessionOnGpu, *, backend: str, precision: Precision
    ) -> None:
        ort, captures = gpu.ort, gpu.captures
        super().__init__(graph, ort, native, memory=None, backend=backend, precision=precision)
        self.idle_bytes = idle_bytes(gpu.memory)
        self.kernels = gpu.kernels
        self._stream = gpu.stream  # after the native session, which has to go first
        self._in_order = _all_on_gpu(native)
        self.run_options = whole(ort)
        self._begins = beginning(ort) if self._in_order else self.run_options
        self.captures = captures
        if captures is not None and not self._in_order:
            captures.refuse("ONNX Runtime wants an input or an output on the host")
        self._order = new_lock()
        frees_when_short(self)

    def launch(self, binding: Any, stream: Stream, options: Any | None = None) -> None:
        """Puts a run into the session's stream, behind what is in the caller's, which then waits for it.

        `options`: of :class:`CapturedRuns`. Raises :class:`BackendError`; for a run that failed, too, the caller's
        stream waits.
        """
        native = self.native()
        with self._order:  # its memory between layers is free for the next run once this one is queued
            self._stream.after(stream)
            if not self._in_order:
                self._stream.synchronize()
            try:
                if options is None or not self._launched(native, binding, options):
                    native.run_with_iobinding(binding, self._begins)
            except Exception as failure:  # ONNX Runtime's share no base
                raise self.failed(failure) from None
            finally:
                stream.after(self._stream)

    def _launched(self, native: Any, binding: Any, options: Any) -> bool:
        """Whether a run could be captured, or launched as what was captured."""
        try:
            native.run_with_iobinding(binding, options)
        except Exception as failure:  # ONNX Runtime's share no base
            if self.captures is not None:
                self.captures.refuse(said(failure))
            return False
        return True

    def failed(self, failure: Exception) -> BackendError:
        """What ONNX Runtime raised, in one line."""
        if _NO_MEMORY.search(str(failure)) is None:
            return super().failed(failure)
        wanted = re.search(r"requested buffer of size (\d+)", str(failure))
        much = f" for {int(wanted[1]) / 2**20:.0f} MiB more" if wanted else ""
        return OutOfMemoryError(
            f"ONNX Runtime failed in graph {self.graph.name!r}: the GPU has no memory{much}; run fewer samples at "
            "once, or free the GPU's memory"
        )

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        with self._order:
            return with_room(lambda: super(CudaSession, self)._run(feeds))

    def _bind(self, sizes: Sizes, carry: Carry) -> Bound:
        return with_room(lambda: CudaBound(self, sizes, carry))

    def _close(self) -> None:
        self._stream.drain()  # its memory goes with the native session
        super()._close()


def _all_on_gpu(native: Any) -> bool:
    """Whether all inputs and outputs are wanted where they are bound."""
    if not hasattr(native, "get_input_memory_infos"):
        return False
    places = (*native.get_input_memory_infos(), *native.get_output_memory_infos())
    return all(
        place.name == "Cuda" or (place.device_vendor_id == NVIDIA and place.device_mem_type.name == "DEFAULT")
        for place in places
    )


class CudaBound(GpuBound):
    """A session at fixed sizes, which reads and writes at addresses of ours: a binding for each turn."""

    session: CudaSession

    def __init__(self, session: CudaSession, sizes: Sizes, carry: Carry) -> None:
        native = session.native()
        super().__init__(session, sizes, carry, kernels=session.kernels)
        self._captured = CapturedRuns(session.captures)
        try:
            self._bindings = [self._binding(native, turn) for turn in range(2 if carry else 1)]
        except Exception as failure:  # ONNX Runtime's share no base
            raise session.failed(failure) from None

    def _binding(self, native: Any, turn: int) -> Any:
        binding, addresses = native.io_binding(), self._addresses(turn)
        for specs, bind in (
            (self.session.graph.inputs, binding.bind_input),
            (self.session.graph.outputs, binding.bind_output),
        ):
            for spec in specs:
                dtype = np.dtype(spec.dtype).type
                bind(spec.name, "cuda", 0, dtype, list(self._shapes[spec.name]), addresses[spec.name])
        return binding

    def _launch(self, turn: int) -> None:
        turn %= len(self._bindings)
        self.session.launch(self._bindings[turn], self._stream, self._captured.options(turn))

    def close(self) -> None:
        """Waits for the GPU, then frees its memory."""
        super().close()
        self._bindings = []
