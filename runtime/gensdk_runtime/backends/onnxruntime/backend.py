"""ONNX Runtime: the CPU provider, and the accelerated ones where they really run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

import numpy as np

from gensdk_runtime.backends import register_backend
from gensdk_runtime.backends.base import Availability, Backend, Feeds, GraphSource, Session
from gensdk_runtime.backends.bound import (
    Array,
    Bound,
    Carry,
    CopyingBound,
    SharedBound,
    Sizes,
    check_carry,
    empty_tensor,
)
from gensdk_runtime.backends.onnxruntime.graph_runs import stoppable
from gensdk_runtime.backends.onnxruntime.memory import bound_memory, give_back, wanted_too_much
from gensdk_runtime.errors import BackendError, InputError, OutOfMemoryError, UnavailableError, did_you_mean
from gensdk_runtime.host.forking import CUDA, OPENVINO, new_lock
from gensdk_runtime.host.processor import thread_limit
from gensdk_runtime.host.telemetry import quieten_onnxruntime
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec

INSTALL = 'pip install "gensdk[cpu]" (or "gensdk[gpu]" for an NVIDIA GPU; never both)'


@dataclass(frozen=True)
class Provider:
    """An execution provider: its name in ONNX Runtime, what installs it, and what it leaves operations to.

    `memory`: where its tensors can stay between runs; None: each run copies. `plugin`: the module that has it,
    where it is no part of ONNX Runtime itself.
    """

    name: str
    install: str
    chain: tuple[str, ...] = ()
    memory: str | None = None
    plugin: str | None = None


LARGE_BYTES = 16 * 2**20
"""A graph of this size allocates each tensor as it comes: planning all of them ahead keeps both in memory, which
is 190 MB more for a U-Net of 36 million parameters at batch 8, and is felt in the time of small graphs alone."""
SPIN_MICROSECONDS = "200"
"""Where threads may spin: longer than from one step to the next, and soon over when there is nothing to do."""
_GPU_BUILD = 'pip uninstall onnxruntime, then pip install "gensdk[gpu]"'
PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", INSTALL, memory="cpu"),
    "cuda": Provider("CUDAExecutionProvider", _GPU_BUILD, ("cpu",), "cuda"),
    "tensorrt": Provider("TensorrtExecutionProvider", _GPU_BUILD, ("cuda", "cpu"), "cuda"),
    "nvtensorrtrtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        "pip install onnxruntime-ep-nv-tensorrt-rtx",
        ("cpu",),
        "cuda",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider", "pip uninstall onnxruntime, then pip install onnxruntime-openvino", ("cpu",)
    ),
}
_REGISTERING = new_lock()


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
    quieten_onnxruntime(onnxruntime)
    return onnxruntime


@register_backend("onnxruntime")
class OnnxRuntimeBackend(Backend):
    """Runs ``.onnx`` graphs.

    `provider`: cpu, cuda, tensorrt, nvtensorrtrtx or openvino; `threads` bounds the threads in one graph, which
    wait busily for the next run with `spinning`.
    """

    def __init__(self, provider: str = "cpu", threads: int | None = None, spinning: bool = False) -> None:
        if provider not in PROVIDERS:
            raise InputError(f"no execution provider {provider!r}{did_you_mean(provider, PROVIDERS)}")
        self._ort = _import()
        self.provider = provider
        self.threads = threads
        self.spinning = spinning
        if not _built_in(self._ort, provider) and not _plugin_devices(self._ort, provider):
            raise UnavailableError(_missing(self._ort, provider))

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
        missing = {key: reason for key in PROVIDERS if (reason := _missing(ort, key)) is not None}
        usable = tuple(key for key in PROVIDERS if key not in missing)
        return Availability(True, version=ort.__version__, devices=usable, missing=missing)

    @property
    def label(self) -> str:
        """``onnxruntime``, or with the provider, as in ``onnxruntime:cuda``."""
        return self.name if self.provider == "cpu" else f"{self.name}:{self.provider}"

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        """Loads the graph; a provider that falls back to another one is an error, never a silent change."""
        provider = PROVIDERS[self.provider]
        if provider.memory == "cuda":
            CUDA.use()
        elif self.provider == "openvino":
            OPENVINO.use()
        chain = [PROVIDERS[key].name for key in (self.provider, *provider.chain)]
        model = source.read() if source.path is None else str(source.path)
        try:
            options = self._options()
            options.enable_mem_pattern = isinstance(model, bytes) and len(model) < LARGE_BYTES
            if not _built_in(self._ort, self.provider):
                options.add_provider_for_devices(_plugin_devices(self._ort, self.provider), {})
                chain = []
            session = self._ort.InferenceSession(model, options, providers=chain)
        except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime can't load graph {graph.name!r}: {_line(failure)}") from None
        running = session.get_providers()
        if provider.name not in running:
            raise UnavailableError(
                f"{provider.name} did not start here, ONNX Runtime fell back to {running[0]}; check its driver "
                "and libraries (gensdk env), or use backend='onnxruntime'"
            )
        session.disable_fallback()
        return OnnxRuntimeSession(
            graph, self._ort, session, memory=provider.memory, backend=self.label, precision=precision
        )

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        bound_memory(self._ort, options)
        options.log_severity_level = 4  # failures come as exceptions, with our own words around them
        threads = thread_limit() if self.threads is None else self.threads
        if threads is not None:
            options.intra_op_num_threads = threads
        # One graph runs at a time, and threads that spin between runs starve the application's own.
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self.spinning else "0")
        options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
        return options


class OnnxRuntimeSession(Session):
    """A loaded graph. ``InferenceSession.run`` may be called from several threads at once."""

    survives_fork = False

    def __init__(
        self, graph: GraphSpec, ort: Any, session: Any, *, memory: str | None, backend: str, precision: Precision
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
        return kind(f"ONNX Runtime failed in graph {self.graph.name!r}: {_line(failure)}")

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        session = self.native()
        try:
            results = session.run(self._outputs, feeds, self.run_options)
        except Exception as failure:  # see open()
            raise self.failed(failure) from None
        return dict(zip(self._outputs, results, strict=True))

    def _bind(self, sizes: Sizes, carry: Carry) -> Bound:
        if self._memory == "cpu":
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


class HostBound(SharedBound):
    """On the CPU: ONNX Runtime works in our arrays, and refuses outputs of another shape or type than theirs."""

    session: OnnxRuntimeSession

    def __init__(self, session: OnnxRuntimeSession, ort: Any, sizes: Sizes, carry: Carry) -> None:
        super().__init__(session, sizes, carry)
        native = session.native()
        of = ort.OrtValue.ortvalue_from_numpy  # shares memory with the array
        self._bindings = [
            _binding(native, _values(turn.inputs, of), _values(turn.outputs, of)) for turn in self.turns
        ]

    def _launch(self, turn: int) -> None:
        session = self.session.native()
        try:
            session.run_with_iobinding(self._bindings[turn], self.session.run_options)
        except Exception as failure:  # see OnnxRuntimeBackend.open
            raise self.session.failed(failure) from None

    def close(self) -> None:
        """Lets go of the session's memory."""
        self._bindings = []


class DeviceBound(Bound):
    """Tensors stay on the device; inputs go up when they were asked for, outputs come down when they are."""

    session: OnnxRuntimeSession

    def __init__(self, session: OnnxRuntimeSession, ort: Any, sizes: Sizes, carry: Carry, memory: str) -> None:
        super().__init__(session, sizes, carry)
        graph = session.graph
        check_carry(graph, carry)
        self._inputs = {spec.name: empty_tensor(graph, spec, sizes) for spec in graph.inputs}
        outputs = {spec.name: empty_tensor(graph, spec, sizes) for spec in graph.outputs}

        def allocate(array: Array) -> Any:
            return ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, memory, 0)

        native = session.native()
        try:
            above, below = _values(self._inputs, allocate), _values(outputs, allocate)
            turns = [(above, below)]
            if carry:
                carried = {name: below[output] for output, name in carry.items()}
                turns.append((above | carried, below | {output: above[name] for output, name in carry.items()}))
            self._bindings = [_binding(native, *turn) for turn in turns]
        except Exception as failure:  # see OnnxRuntimeBackend.open
            raise session.failed(failure) from None
        self._turns = turns
        self._next = self._last = 0
        self._changed = set(self._inputs)
        self._carried: set[str] = set()  # inputs that are newer on the device
        self._fetched: dict[str, Array] = {}

    def input(self, name: str) -> Array:
        """The array that goes up before the next run."""
        if name in self._carried:
            np.copyto(self._inputs[name], self._turns[self._next][0][name].numpy())
            self._carried.discard(name)
        self._changed.add(name)
        return self._inputs[name]

    def output(self, name: str) -> Array:
        """What the last run gave, brought down once."""
        if name not in self._fetched:
            self._fetched[name] = self._turns[self._last][1][name].numpy()
        return self._fetched[name]

    def _run(self) -> None:
        session, values = self.session.native(), self._turns[self._next][0]
        try:
            for name in self._changed:
                values[name].update_inplace(self._inputs[name])
            session.run_with_iobinding(self._bindings[self._next], self.session.run_options)
        except Exception as failure:  # see OnnxRuntimeBackend.open
            raise self.session.failed(failure) from None
        self._changed.clear()
        self._fetched.clear()
        self._carried = set(self.carry.values())
        self._last, self._next = self._next, (self._next + 1) % len(self._turns)

    def close(self) -> None:
        """Frees the device memory."""
        self._bindings, self._turns = [], []


def _values(arrays: Mapping[str, Array], make: Any) -> dict[str, Any]:
    return {name: make(array) for name, array in arrays.items()}


def _binding(session: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding


def _missing(ort: Any, provider: str) -> str | None:
    """Why `provider` can't run here, and what mends it; None where it can."""
    wanted = PROVIDERS[provider]
    if not _built_in(ort, provider) and not _plugin_devices(ort, provider):
        if wanted.plugin is not None and find_spec(wanted.plugin) is not None:
            return f"{wanted.plugin} finds no NVIDIA GPU; install its driver (try nvidia-smi)"
        return f"this build of ONNX Runtime ({ort.__version__}) has no {wanted.name}; {wanted.install}"
    if provider in ("cuda", "tensorrt") and not _has_gpu(ort):
        return f"{wanted.name} finds no NVIDIA GPU; install its driver (try nvidia-smi)"
    return None


def _built_in(ort: Any, provider: str) -> bool:
    return PROVIDERS[provider].name in ort.get_available_providers()


def _plugin_devices(ort: Any, provider: str) -> list[Any]:
    """The devices of a provider that is a package of its own, which is registered when it is first asked for."""
    name, plugin = PROVIDERS[provider].name, PROVIDERS[provider].plugin
    if plugin is None or find_spec(plugin) is None:
        return []
    try:
        with _REGISTERING:
            if not any(device.ep_name == name for device in ort.get_ep_devices()):
                module = import_module(plugin)
                ort.register_execution_provider_library(name, module.get_library_path())
            return [device for device in ort.get_ep_devices() if device.ep_name == name]
    except Exception:  # its libraries or driver are missing, or it was registered and found no device
        return []


def _has_gpu(ort: Any) -> bool:
    """True if ONNX Runtime finds an NVIDIA GPU on this machine (builds before 1.23 can't tell: then no)."""
    try:
        return any(device.ep_name == PROVIDERS["cuda"].name for device in ort.get_ep_devices())
    except (AttributeError, RuntimeError):
        return False


def _line(failure: Exception) -> str:
    if (reason := wanted_too_much(str(failure))) is not None:
        return reason
    return " ".join(str(failure).split())[:300]
