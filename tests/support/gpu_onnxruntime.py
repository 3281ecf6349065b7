"""A GPU build of ONNX Runtime that isn't there: the real one on the CPU, which writes down what it is told.

As on a GPU since Ampere, products are rounded to TF32 unless that is forbidden in the way of the provider. A
device's memory is the CPU's, but only what that build of ONNX Runtime would give is given; or it is that of a GPU
that the CPU plays, where sessions work in the stream that they are given, as late as it lets them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime as real

from gensdk_runtime.host import nvidia
from gensdk_runtime.host.nvidia import Driver, Gpu
from support.tf32 import in_tf32

if TYPE_CHECKING:
    from support.host_gpu import HostCuda

CUDA, TENSORRT, RTX = "CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
CPU = "CPUExecutionProvider"
ADA = Driver((Gpu("NVIDIA Double", (8, 9), 24 * 2**30),), 13020, "580.82.07")
NVIDIA = 0x10DE


class SessionOptions(real.SessionOptions):  # type: ignore[misc]
    chosen: tuple[Any, ...] = ()

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        self.chosen = (devices[0].ep_name, dict(options))


class GpuOnnxRuntime:
    """Stands for the module. `built_in`: its providers; `refused`: those that don't start, without a word.

    `gpu`: where sessions work that are given a stream; `failures`: what the next runs raise; `hosted`: whether
    these sessions want all inputs on the host, "unsaid" as before ONNX Runtime 1.23; `graphless`: what can't be a
    CUDA graph, as is said when a session opens ("nodes") or when a run is captured.
    """

    def __init__(
        self,
        *,
        built_in: tuple[str, ...] = (TENSORRT, CUDA),
        cuda: str = "13.0",
        gpu: HostCuda | None = None,
    ) -> None:
        self.gpu = gpu
        self.failures: list[Exception] = []
        self.graphless: Literal["", "nodes", "captures"] = ""
        self.hosted: Literal["no", "yes", "unsaid"] = "no"
        self.sessions: list[weakref.ref[PlayedSession]] = []
        self.built_in, self.cuda_version = built_in, cuda
        self.__file__ = real.__file__
        self.refused: set[str] = set()
        self.told: list[list[tuple[str, dict[str, str]]]] = []
        self.calls: Counter[str] = Counter()
        self.plugins: dict[str, str] = {}
        self.SessionOptions = SessionOptions
        self.OrtValue = SimpleNamespace(
            ortvalue_from_numpy=real.OrtValue.ortvalue_from_numpy, ortvalue_from_shape_and_type=self._allocate
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)

    def get_available_providers(self) -> list[str]:
        return [*self.built_in, CPU]

    def preload_dlls(self) -> None:
        print("Failed to load libcublas.so.13")  # as the real one tells
        self.calls["preload"] += 1

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.plugins[name] = path

    def get_ep_devices(self) -> list[Any]:
        return [SimpleNamespace(ep_name=name) for name in (CPU, *self.plugins)]

    def copy_tensors(self, sources: list[Any], targets: list[Any]) -> None:
        self.calls["copy"] += 1
        for source, target in zip(sources, targets, strict=True):
            target.update_inplace(source.numpy())

    def InferenceSession(self, model: Any, options: Any, *, providers: list[Any], enable_fallback: int = 1) -> Any:
        told = [each if isinstance(each, tuple) else (each, {}) for each in providers]
        told = told or [options.chosen, (CPU, {})]
        self.told.append(told)
        first, its = told[0]
        running = [name for name, _ in told if name not in self.refused]
        data = model if isinstance(model, bytes) else Path(model).read_bytes()
        by_option = its.get("use_tf32", "1") != "0"
        by_process = os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
        if (first == CUDA and by_option and by_process) or (first not in (CUDA, CPU) and by_process):
            data = in_tf32(data)
        plain = real.SessionOptions()
        plain.log_severity_level, plain.intra_op_num_threads = 4, 1
        session = real.InferenceSession(data, plain, providers=[CPU])
        session.get_providers = lambda: running
        streams = {its.get("user_compute_stream") for name, its in told if name != CPU}
        if streams <= {None}:
            return session
        (stream,) = streams  # all of them work in the same one
        assert self.gpu is not None
        assert all(its["has_user_compute_stream"] == "1" for name, its in told if name != CPU)
        if its.get("enable_cuda_graph") == "1" and self.graphless == "nodes":
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        played = PlayedSession(self, session, int(stream), graphs=its.get("enable_cuda_graph") == "1")
        self.sessions.append(weakref.ref(played))
        return played

    def _allocate(self, shape: list[int], dtype: Any, device: str, number: int, **more: Any) -> Any:
        known = ("cuda", {}) if CUDA in self.built_in else ("gpu", {"vendor_id": NVIDIA})
        plugin = ("gpu", {"vendor_id": NVIDIA}) if self.plugins else known
        if (device, more) not in (known, plugin):
            raise RuntimeError(f"Unsupported device type: {device}")
        self.calls["allocate"] += 1
        return real.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)


class PlayedSession:
    """A session on the GPU: runs begin in a stream, over the addresses that are bound; what was captured runs over
    those of that time."""

    def __init__(self, ort: GpuOnnxRuntime, session: Any, stream: int, *, graphs: bool) -> None:
        self.ort, self.session, self.stream, self.graphs = ort, session, stream, graphs
        self.captured: dict[tuple[int, int], Callable[[], None]] = {}
        self.inside = 0
        assert stream in ort.gpu.queues

    def __getattr__(self, name: str) -> Any:
        if name in ("get_input_memory_infos", "get_output_memory_infos"):
            if self.ort.hosted == "unsaid":
                raise AttributeError(name)
            place = ("Cpu", 0) if self.ort.hosted == "yes" and "input" in name else ("of a plugin", NVIDIA)
            kind = real.OrtDeviceMemoryType.DEFAULT
            info = SimpleNamespace(name=place[0], device_vendor_id=place[1], device_mem_type=kind)
            return lambda: [info]
        return getattr(self.session, name)

    def run(self, names: list[str], feeds: dict[str, Any], options: Any) -> Any:
        with self._alone():
            self.ort.gpu.cudaStreamSynchronize(self.stream)
            assert not self.graphs or entry(options, "gpu_graph_id") == "-1"
            self._fail()
            return self.session.run(names, feeds, options)

    def io_binding(self) -> PlayedBinding:
        return PlayedBinding(self)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two runs at once would share the memory between layers, where one is queued whole before the other."""
        self.inside += 1
        time.sleep(0.001)
        assert self.inside == 1
        try:
            yield
        finally:
            self.inside -= 1

    def run_with_iobinding(self, binding: PlayedBinding, options: Any) -> None:
        with self._alone():
            self._begin(binding, options)

    def _begin(self, binding: PlayedBinding, options: Any) -> None:
        gpu = self.ort.gpu
        assert binding.session is self
        feeds = {name: gpu.view(*place) for name, place in binding.inputs.items()}
        results = {name: gpu.view(*place) for name, place in binding.outputs.items()}
        assert set(feeds) == {each.name for each in self.session.get_inputs()}
        assert gpu.objects[self.stream] == "stream", "it outlives the session"

        def work() -> None:
            for name, made in zip(results, self.session.run(list(results), feeds), strict=True):
                assert (made.shape, made.dtype) == (results[name].shape, results[name].dtype)
                results[name][...] = made

        number = int(entry(options, "gpu_graph_id")) if self.graphs else -1
        if number != -1:
            work = self._captured((threading.get_ident(), number), work)
        gpu.calls["enqueue"] += 1
        if self.ort.hosted == "no":
            gpu.enqueue(self.stream, work)
        else:
            work()  # beside the stream
        self._fail()
        if entry(options, "disable_synchronize_execution_providers") != "1":
            gpu.cudaStreamSynchronize(self.stream)

    def _captured(self, key: tuple[int, int], work: Callable[[], None]) -> Callable[[], None]:
        gpu = self.ort.gpu
        if key in self.captured:
            gpu.calls["launched"] += 1
            return self.captured[key]
        gpu.enqueue(self.stream, work)  # ONNX Runtime runs once before it captures
        gpu.cudaStreamSynchronize(self.stream)
        if self.ort.graphless == "captures":
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing ; GPU=0")
        gpu.calls["captured"] += 1
        self.captured[key] = work
        return work

    def _fail(self) -> None:
        if self.ort.failures:
            raise self.ort.failures.pop(0)


def entry(options: Any, key: str) -> str:
    try:
        return str(options.get_run_config_entry(key))
    except RuntimeError:  # there is none
        return "0"


class PlayedBinding:
    def __init__(self, session: PlayedSession) -> None:
        self.session = session
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def bind_input(self, name: str, *bound: Any) -> None:
        self.inputs[name] = self._place(*bound)

    def bind_output(self, name: str, *bound: Any) -> None:
        self.outputs[name] = self._place(*bound)

    def _place(self, device: str, number: int, dtype: Any, shape: list[int], address: int) -> Any:
        assert (device, number) == ("cuda", 0)
        return address, tuple(shape), np.dtype(dtype).name


def put_in(monkeypatch: Any, double: GpuOnnxRuntime, driver: Driver = ADA) -> GpuOnnxRuntime:
    """Lets gensdk find `double` where it imports ONNX Runtime, and this `driver`."""
    monkeypatch.setitem(sys.modules, "onnxruntime", double)
    monkeypatch.setattr(nvidia, "_driver", lambda visible: driver)
    return double
