"""OpenVINO: a graph compiled for each set of sizes, run over memory that it shares with the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from gensdk_runtime.backends import register_backend
from gensdk_runtime.backends.base import Availability, Backend, Feeds, GraphSource, Session, check_feeds
from gensdk_runtime.backends.bound import Array, Bound, Carry, SharedBound, Sizes
from gensdk_runtime.backends.openvino.compiler import Compiled, Compiler, SizesKey, one_line
from gensdk_runtime.backends.openvino.importing import quiet_openvino, settle, shared_core
from gensdk_runtime.errors import BackendError, InputError, OutOfMemoryError, UnavailableError, did_you_mean
from gensdk_runtime.host.forking import OPENVINO
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec

DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
INSTALL = 'pip install "gensdk[openvino]"'


def _import() -> Any:
    try:
        with quiet_openvino():
            import openvino
        settle(openvino)
    except ImportError as failure:
        raise UnavailableError(f"OpenVINO is missing ({failure}); {INSTALL}") from None
    return openvino


@register_backend("openvino")
class OpenVinoBackend(Backend):
    """Runs ``.onnx`` graphs in float32, whatever their weights are in.

    `provider`: cpu, gpu (Intel's) or npu. `threads` bounds the CPU threads inside one graph: then as many runs go
    on side by side as there are cores for. Without it they go one after the other, each on all cores.
    """

    padded = True

    def __init__(self, provider: str = "cpu", threads: int | None = None) -> None:
        if provider not in DEVICES:
            raise InputError(f"no OpenVINO device {provider!r}{did_you_mean(provider, DEVICES)}")
        self._ov = _import()
        OPENVINO.check()
        self._core = shared_core(self._ov)
        self.provider = provider
        self.threads = threads
        if DEVICES[provider] not in _found(self._core):
            raise UnavailableError(_missing(provider))

    @classmethod
    def create(cls, *, provider: str | None, threads: int | None, spinning: bool) -> Self:
        """An instance for `provider` (None: the CPU). How its threads wait is OpenVINO's own choice."""
        return cls(provider or "cpu", threads)

    @classmethod
    def availability(cls) -> Availability:
        """The devices that OpenVINO finds on this machine."""
        try:
            OPENVINO.check()
            ov = _import()
            found = _found(shared_core(ov))
        except (UnavailableError, RuntimeError) as failure:
            return Availability(False, reason=str(failure).split(";")[0], remedy=INSTALL)
        missing = {key: _missing(key) for key, device in DEVICES.items() if device not in found}
        return Availability(
            "cpu" not in missing,
            version=ov.__version__.split("-")[0],
            devices=tuple(key for key in DEVICES if key not in missing),
            reason="OpenVINO finds no CPU plugin" if "cpu" in missing else "",
            remedy=INSTALL if "cpu" in missing else "",
            missing=missing,
        )

    @property
    def label(self) -> str:
        """``openvino``, or with the device, as in ``openvino:gpu``."""
        return self.name if self.provider == "cpu" else f"{self.name}:{self.provider}"

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        """Reads the graph; it is compiled when sizes are asked for."""
        compiler = Compiler(self._ov, self._core, DEVICES[self.provider], self.threads, graph)
        compiler.read(source)
        return OpenVinoSession(graph, self._ov, compiler, backend=self.label, precision=precision)


class OpenVinoSession(Session):
    """A graph, compiled for the latest sizes that were asked for."""

    survives_fork = False

    def __init__(
        self, graph: GraphSpec, ov: Any, compiler: Compiler, *, backend: str, precision: Precision
    ) -> None:
        super().__init__(graph, backend=backend, precision=precision)
        self.openvino = ov
        self._compiler: Compiler | None = compiler

    @property
    def compiler(self) -> Compiler:
        """What compiles the graph; :class:`BackendError` when the session was closed."""
        compiler = self._compiler
        if compiler is None:
            raise self.closed_error()
        return compiler

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        with self.bound(check_feeds(self.graph, feeds)) as bound:
            for name, array in feeds.items():
                np.copyto(bound.input(name), array)
            bound.run()
            return {spec.name: bound.output(spec.name).copy() for spec in self.graph.outputs}

    def _bind(self, sizes: Sizes, carry: Carry) -> Bound:
        return OpenVinoBound(self, sizes, carry)

    def _close(self) -> None:
        self._compiler = None


class OpenVinoBound(SharedBound):
    """OpenVINO works in our arrays, with one request for each turn."""

    session: OpenVinoSession

    def __init__(self, session: OpenVinoSession, sizes: Sizes, carry: Carry) -> None:
        super().__init__(session, sizes, carry)
        self.key: SizesKey = tuple(sorted(sizes.items()))
        self._requests: tuple[Compiled, list[_Request]] | None = None
        self._compiler = session.compiler
        self._compiler.enter(self)
        self._ready()

    def forget(self, compiled: Compiled) -> None:
        """See :class:`gensdk_runtime.backends.openvino.compiler.User`."""
        ready = self._requests
        if ready is not None and ready[0] is compiled:
            self._requests = None

    def close(self) -> None:
        """Lets go of the requests."""
        self._compiler.leave(self)
        self._requests = None

    def _launch(self, turn: int) -> None:
        request = self._ready()[turn]
        try:
            # One call, which ends with the run: after an interrupt between two, it would write on freed memory.
            request.native.infer(share_outputs=True)
            unsure = {name: request.native.get_tensor(name).data for name in request.unsure}
        except Exception as failure:  # OpenVINO's exceptions share no base but Exception
            raise self._failed(failure) from None
        for name, array in unsure.items():
            self._check(array.dtype, array.shape, name, turn)
            np.copyto(self.turns[turn].outputs[name], array)

    def _ready(self) -> list[_Request]:
        """The requests, made anew when the graph was compiled anew."""
        compiled = self._compiler.compiled(self)
        ready = self._requests
        if ready is None or ready[0] is not compiled:
            ready = self._requests = (
                compiled,
                [self._request(compiled.model, turn) for turn in range(len(self.turns))],
            )
        return ready[1]

    def _request(self, model: Any, turn: int) -> _Request:
        used = {name for port in model.inputs for name in port.get_names()}  # an unused input is left out
        arrays = {name: array for name, array in self.turns[turn].inputs.items() if name in used}
        unsure = []
        try:
            for name, array in self.turns[turn].outputs.items():
                port = model.output(name)
                if port.get_partial_shape().is_dynamic:
                    unsure.append(name)
                    continue
                self._check(port.get_element_type().to_dtype(), tuple(port.get_shape()), name, turn)
                arrays[name] = array
            native = model.create_infer_request()
            for name, array in arrays.items():
                native.set_tensor(name, self.session.openvino.Tensor(array, shared_memory=True))
        except BackendError:
            raise
        except Exception as failure:  # see _launch
            raise self._failed(failure) from None
        return _Request(native, tuple(unsure))

    def _check(self, dtype: Any, shape: tuple[int, ...], name: str, turn: int) -> None:
        """Raises :class:`BackendError` unless an output is what the graph promises."""
        wanted = self.turns[turn].outputs[name]
        if (dtype, shape) != (wanted.dtype, wanted.shape):
            raise BackendError(
                f"{self.session.graph.name}.{name}: expected {wanted.dtype} {list(wanted.shape)} from the graph,"
                f" got {np.dtype(dtype)} {list(shape)}; export the bundle again"
            )

    def _failed(self, failure: Exception) -> BackendError:
        kind = OutOfMemoryError if "bad_alloc" in str(failure) else BackendError
        return kind(f"OpenVINO failed in graph {self.session.graph.name!r}: {one_line(failure)}")


@dataclass(frozen=True)
class _Request:
    """An infer request, and the outputs whose shape is only known after a run, so that they must be copied."""

    native: Any
    unsure: tuple[str, ...]


def _found(core: Any) -> set[str]:
    """The kinds of devices on this machine; of several GPUs each has a number."""
    return {device.split(".")[0] for device in core.available_devices}


def _missing(provider: str) -> str:
    if provider == "cpu":
        return f"OpenVINO finds no CPU plugin; {INSTALL}"
    return f"OpenVINO finds no Intel {provider.upper()} here; install its driver"
