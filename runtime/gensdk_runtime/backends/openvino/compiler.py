"""Compiles an ONNX graph with OpenVINO for each set of sizes that is asked for, and keeps the latest."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakSet

from gensdk_runtime.backends.base import GraphSource
from gensdk_runtime.backends.bound import tensor_shape
from gensdk_runtime.backends.openvino.norms import fuse_group_norms
from gensdk_runtime.backends.openvino.snippets import snippet_settings
from gensdk_runtime.errors import BackendError
from gensdk_runtime.host.forking import OPENVINO, new_lock
from gensdk_runtime.host.processor import cores_to_fill, thread_limit
from gensdk_runtime.onnx_files.mapped_weights import MappedWeights, map_weights
from gensdk_runtime.spec.signature import GraphSpec

MAX_COMPILED_BYTES = 2**29
"""Weights of all compiled sizes of one graph together: each packs its own copy."""
MIN_COMPILED, MAX_COMPILED = 2, 8
"""So many compiled sizes of one graph are kept in any case, and at most."""

OWN_SIZES = 2
"""So many sizes of images are compiled for themselves at once; further ones share a graph for images of any size.
That runs somewhat longer than one for its own size, but compiling such a one takes as long as running it twice."""
OWN_AFTER = 32
"""Runs of one size on the shared graph, after which it is compiled for itself all the same."""
ANY = -1
MAX_COUNTED = 1024

SizesKey = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Compiled:
    """A graph compiled for some sizes; `model` runs as many requests side by side as it has `streams`."""

    model: Any
    streams: int


class User(Protocol):
    """What runs a compiled graph, one run at a time."""

    key: SizesKey

    def forget(self, compiled: Compiled) -> None:
        """Lets go of a compiled graph that is not kept any longer; a run that is under way goes on."""


class Compiler:
    """One graph on one device (CPU, GPU, NPU), with so many `threads` for each run on the CPU (None: all)."""

    def __init__(self, ov: Any, core: Any, device: str, threads: int | None, graph: GraphSpec) -> None:
        self._ov = ov
        self._core = core
        self._device = device
        self._threads = threads
        self._graph = graph
        self._model: Any = None
        self._weights = MappedWeights(b"")
        self._limit = MIN_COMPILED
        self._users: WeakSet[Any] = WeakSet()
        self._compiled: OrderedDict[SizesKey, Compiled] = OrderedDict()
        self._free = _image_axes(graph) if device == "CPU" else frozenset()
        self._runs: Counter[SizesKey] = Counter()
        self._lock = new_lock()

    def read(self, source: GraphSource) -> None:
        """Reads the graph. Large weights stay in a file (:mod:`gensdk_runtime.onnx_files.mapped_weights`)."""
        if source.path is not None:
            self._model = self._read(str(source.path))  # tensors in other files are mapped by OpenVINO
            return
        data = source.read()
        self._limit = max(MIN_COMPILED, min(MAX_COMPILED, MAX_COMPILED_BYTES // len(data)))
        weights = map_weights(data)
        del data
        model = self._read(weights.skeleton)
        for parameter in model.get_parameters():
            array = weights.arrays.get(parameter.output(0).get_any_name())
            if array is not None:
                constant = self._ov.op.Constant(array, shared_memory=True)
                parameter.output(0).replace(constant.output(0))
                model.remove_parameter(parameter)
        self._model, self._weights = model, weights

    def enter(self, user: User) -> None:
        """Counts `user` among those that may run at the same time."""
        with self._lock:
            self._users.add(user)

    def leave(self, user: User) -> None:
        """Ends what :meth:`enter` began."""
        with self._lock:
            self._users.discard(user)

    def compiled(self, user: User) -> Compiled:
        """The graph for the sizes of `user`, with streams for all users of these sizes.

        Raises :class:`BackendError` where the graph can't be compiled for them.
        """
        with self._lock:
            key = self._form(user.key)
            found = self._compiled.get(key)
            streams = self._streams(sum(each.key in (key, user.key) for each in self._users))
            if found is None or found.streams < streams:
                try:
                    self._keep(key, Compiled(self._compile(dict(key), streams), streams))
                except BackendError:
                    if key == user.key:
                        raise
                    self._free, key = frozenset(), user.key  # each size for itself, then
                    self._keep(key, Compiled(self._compile(dict(key), streams), streams))
                found = self._compiled[key]
            self._compiled.move_to_end(key)
            return found

    def _form(self, key: SizesKey) -> SizesKey:
        """What runs these sizes: a graph of their own, or the one for images of any size."""
        if key in self._compiled or not self._free.intersection(name for name, _ in key):
            return key
        shared = tuple((name, ANY if name in self._free else size) for name, size in key)
        alike = sum(
            all(b in (ANY, a) for (_, a), (_, b) in zip(other, shared, strict=True)) for other in self._own()
        )
        if len(self._runs) > MAX_COUNTED:
            self._runs.clear()
        self._runs[key] += 1
        if alike >= OWN_SIZES and self._runs[key] <= OWN_AFTER:
            return shared
        del self._runs[key]
        return key

    def _own(self) -> list[SizesKey]:
        return [key for key in self._compiled if all(size != ANY for _, size in key)]

    def _streams(self, users: int) -> int:
        """Enough for `users`, but no more than there are cores for; a power of two, since each change compiles."""
        if self._threads is None or self._device != "CPU":
            return 1
        return max(1, min(1 << (users - 1).bit_length(), cores_to_fill() // self._threads))

    def _keep(self, key: SizesKey, compiled: Compiled) -> None:
        """Keeps `compiled`, and lets go of what it replaces and of the one that was not used for longest."""
        gone = [self._compiled.pop(key, None)]
        self._compiled[key] = compiled
        while len(self._compiled) > self._limit:
            gone.append(self._compiled.popitem(last=False)[1])
        for old in gone:
            for user in self._users:
                if old is not None:
                    user.forget(old)

    def _read(self, model: str | bytes) -> Any:
        try:
            return self._core.read_model(model)
        except Exception as failure:  # OpenVINO's exceptions share no base but Exception
            raise BackendError(f"OpenVINO can't load graph {self._graph.name!r}: {one_line(failure)}") from None

    def _compile(self, sizes: Mapping[str, int], streams: int) -> Any:
        OPENVINO.use()  # from here on it has threads
        shapes = {spec.name: list(tensor_shape(self._graph, spec, sizes)) for spec in self._graph.inputs}
        model = self._model.clone()
        known = {name for port in model.inputs for name in port.get_names()}  # an unused input is left out
        try:
            model.reshape({name: shape for name, shape in shapes.items() if name in known})
            with self._weights.releasing():
                return self._core.compile_model(model, self._device, self._settings(model, streams))
        except Exception as failure:  # see _read
            raise BackendError(
                f"OpenVINO can't compile graph {self._graph.name!r} for {dict(sizes)}: {one_line(failure)}"
            ) from None

    def _settings(self, model: Any, streams: int) -> dict[str, Any]:
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if self._device != "CPU":
            return settings
        # Pinned threads of two graphs, or of two processes, would share one core and leave others idle.
        settings |= {"NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False}
        threads = thread_limit() if self._threads is None else self._threads
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads * streams
        if model.is_dynamic():
            return settings | {"SNIPPETS_MODE": "DISABLE"}  # what comes below goes by sizes
        fuse_group_norms(model)
        return settings | snippet_settings(model, self._ov.__version__)


def _image_axes(graph: GraphSpec) -> frozenset[str]:
    """The named axes of images, [batch, C, H, W] or [batch, H, W, C], but for the batch."""
    images = [spec.shape for spec in graph.inputs if len(spec.shape) == 4]
    batch = {shape[0] for shape in images}
    return frozenset(axis for shape in images for axis in shape[1:] if isinstance(axis, str) and axis not in batch)


def one_line(failure: Exception) -> str:
    """What OpenVINO raised, without the places in its source."""
    lines = [line for line in str(failure).splitlines() if line.strip() and not line.startswith("Exception from")]
    return " ".join(" ".join(lines or [str(failure)]).split())[:300]
