"""A graph that ONNX Runtime has loaded."""

from __future__ import annotations

from typing import Any

from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.backends.bound import Array, Bound, Carry, CopyingBound, Sizes
from gensdk_runtime.backends.onnxruntime.buffers import DeviceBound, HostBound, NativeSession
from gensdk_runtime.backends.onnxruntime.device_memory import Memory
from gensdk_runtime.backends.onnxruntime.graph_runs import stoppable
from gensdk_runtime.backends.onnxruntime.memory import give_back, wanted_too_much
from gensdk_runtime.backends.onnxruntime.package import one_line
from gensdk_runtime.errors import BackendError, OutOfMemoryError
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec


class OnnxRuntimeSession(NativeSession):
    """A loaded graph. ``InferenceSession.run`` may be called from several threads at once."""

    survives_fork = False

    def __init__(
        self,
        graph: GraphSpec,
        ort: Any,
        session: Any,
        *,
        memory: Memory | None,
        backend: str,
        precision: Precision,
    ) -> None:
        super().__init__(graph, backend=backend, precision=precision)
        self._ort = ort
        self._session: Any = session
        self._memory = memory
        self.run_options = stoppable(ort)
        self._outputs = [spec.name for spec in graph.outputs]

    def native(self) -> Any:
        """The ``InferenceSession``, held until a run is over, whoever closes this session meanwhile."""
        session = self._session
        if session is None:
            raise self.closed_error()
        return session

    def failed(self, failure: Exception) -> BackendError:
        """What ONNX Runtime raised, in one line."""
        kind = OutOfMemoryError if wanted_too_much(str(failure)) is not None else BackendError
        return kind(f"ONNX Runtime failed in graph {self.graph.name!r}: {said(failure)}")

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        session = self.native()
        try:
            results = session.run(self._outputs, feeds, self.run_options)
        except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
            raise self.failed(failure) from None
        return dict(zip(self._outputs, results, strict=True))

    def _bind(self, sizes: Sizes, carry: Carry) -> Bound:
        if self._memory is not None and self._memory.device == "cpu":
            return HostBound(self, self._ort, sizes, carry)
        if self._memory is None:
            return CopyingBound(self, sizes, carry)
        try:
            return DeviceBound(self, self._ort, sizes, carry, self._memory)
        except BackendError:  # a plugin's memory is not for every build of ONNX Runtime to give
            return CopyingBound(self, sizes, carry)

    def _close(self) -> None:
        self._session = None
        give_back()


def said(failure: Exception) -> str:
    """What ONNX Runtime raised, in one line; of memory, how much it asked for."""
    return wanted_too_much(str(failure)) or one_line(failure)
