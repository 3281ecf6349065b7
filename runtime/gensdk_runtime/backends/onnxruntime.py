"""ONNX Runtime: the CPU provider, and the CUDA and TensorRT providers where they really run."""

from __future__ import annotations

from typing import Any, Self

from gensdk_runtime.backends import register_backend
from gensdk_runtime.backends.base import Availability, Backend, Feeds, GraphSource, Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import BackendError, InputError, UnavailableError, did_you_mean
from gensdk_runtime.manifest import GraphSpec, Precision

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
INSTALL = 'pip install "gensdk[cpu]" (or "gensdk[gpu]" for an NVIDIA GPU; never both)'


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as failure:
        raise UnavailableError(f"ONNX Runtime is missing ({failure}); {INSTALL}") from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise UnavailableError(
            "ONNX Runtime is broken here, as when onnxruntime and onnxruntime-gpu were both installed; "
            f"pip uninstall both, then {INSTALL}"
        )
    return onnxruntime


@register_backend("onnxruntime")
class OnnxRuntimeBackend(Backend):
    """Runs ``.onnx`` graphs. `provider` is cpu, cuda or tensorrt; `threads` bounds the threads in one graph."""

    def __init__(self, provider: str = "cpu", threads: int | None = None, spinning: bool = False) -> None:
        if provider not in PROVIDERS:
            raise InputError(f"no execution provider {provider!r}{did_you_mean(provider, PROVIDERS)}")
        self._ort = _import()
        self.provider = provider
        self.threads = threads
        self.spinning = spinning
        if PROVIDERS[provider] not in self._ort.get_available_providers():
            raise UnavailableError(
                f"this build of ONNX Runtime ({self._ort.__version__}) has no {PROVIDERS[provider]}; "
                'pip uninstall onnxruntime, then pip install "gensdk[gpu]"'
            )

    @classmethod
    def create(cls, *, provider: str | None, threads: int | None, spinning: bool) -> Self:
        """An instance for `provider` (None: the CPU)."""
        return cls(provider or "cpu", threads, spinning)

    @classmethod
    def availability(cls) -> Availability:
        """A listed GPU provider counts only with a GPU driver, since ONNX Runtime lists what was compiled in."""
        try:
            ort = _import()
        except UnavailableError as failure:
            return Availability(False, reason=str(failure).split(";")[0], remedy=INSTALL)
        listed = ort.get_available_providers()
        usable = [key for key, name in PROVIDERS.items() if name in listed and (key == "cpu" or _has_gpu(ort))]
        return Availability(True, version=ort.__version__, devices=tuple(usable))

    @property
    def label(self) -> str:
        """``onnxruntime``, or with the provider, as in ``onnxruntime:cuda``."""
        return self.name if self.provider == "cpu" else f"{self.name}:{self.provider}"

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        """Loads the graph; a provider that falls back to another one is an error, never a silent change."""
        provider = PROVIDERS[self.provider]
        chain = {"tensorrt": ["tensorrt", "cuda", "cpu"], "cuda": ["cuda", "cpu"]}.get(self.provider, ["cpu"])
        model = source.read() if source.path is None else str(source.path)
        try:
            session = self._ort.InferenceSession(
                model, self._options(), providers=[PROVIDERS[name] for name in chain]
            )
        except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime can't load graph {graph.name!r}: {_line(failure)}") from None
        running = session.get_providers()
        if provider not in running:
            raise UnavailableError(
                f"{provider} did not start here, ONNX Runtime fell back to {running[0]}; check the NVIDIA driver, "
                "CUDA and cuDNN (gensdk env), or use backend='onnxruntime'"
            )
        session.disable_fallback()
        return OnnxRuntimeSession(graph, session, backend=self.label, precision=precision)

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 4  # failures come as exceptions, with our own words around them
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        # One graph runs at a time, and threads that spin between runs starve the application's own.
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self.spinning else "0")
        return options


class OnnxRuntimeSession(Session):
    """A loaded graph. ``InferenceSession.run`` may be called from several threads at once."""

    def __init__(self, graph: GraphSpec, session: Any, *, backend: str, precision: Precision) -> None:
        super().__init__(graph, backend=backend, precision=precision)
        self._session: Any = session
        self._outputs = [spec.name for spec in graph.outputs]

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        session = self._session  # held until the run is over, whoever closes it meanwhile
        if session is None:
            raise self.closed_error()
        try:
            results = session.run(self._outputs, feeds)
        except Exception as failure:  # see open()
            raise BackendError(f"ONNX Runtime failed in graph {self.graph.name!r}: {_line(failure)}") from None
        return dict(zip(self._outputs, results, strict=True))

    def _close(self) -> None:
        self._session = None


def _has_gpu(ort: Any) -> bool:
    """Whether ONNX Runtime finds an NVIDIA GPU on this machine (builds before 1.23 can't tell: then no)."""
    try:
        return any(device.ep_name == PROVIDERS["cuda"] for device in ort.get_ep_devices())
    except (AttributeError, RuntimeError):
        return False


def _line(failure: Exception) -> str:
    return " ".join(str(failure).split())[:300]
