"""TensorRT-RTX and classic TensorRT: engines on an NVIDIA GPU, built here unless the bundle brings one along.

An engine is native code, of the bundle's maker: one that was not made on this machine is taken only where the user
says so (``Generator.load(..., trust_engines=True)``), and built from the graph otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Self

from gensdk_runtime.backends import register_backend
from gensdk_runtime.backends.base import Availability, Backend, Feeds, GraphSource, Session, check_feeds
from gensdk_runtime.backends.bound import Array, Bound, Carry, Sizes, tensor_shape
from gensdk_runtime.backends.chain import Chain
from gensdk_runtime.backends.tensorrt.build import AxisRange, Recipe, image_axes
from gensdk_runtime.backends.tensorrt.cache import EngineCache
from gensdk_runtime.backends.tensorrt.device import INSTALL, DeviceMemory, PinnedArray, Stream, find_gpu
from gensdk_runtime.backends.tensorrt.engine import Lane, LoadedEngine
from gensdk_runtime.backends.tensorrt.needs import chain_of
from gensdk_runtime.backends.tensorrt.package import RUNTIMES, EngineRuntime, installed, load_package
from gensdk_runtime.backends.tensorrt.supply import EngineSource, Supplier
from gensdk_runtime.errors import InputError, UnavailableError, did_you_mean
from gensdk_runtime.host.forking import CUDA
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

Kind = Literal["rtx", "classic"]
KINDS: Mapping[str, EngineRuntime] = {"rtx": "tensorrt-rtx", "classic": "tensorrt"}
"""What stands behind the colon, as in ``tensorrt:rtx``, in the order in which it is preferred."""

LARGEST_BATCH = 64
"""Of engines for a source that does not say how large the model's batches may be."""
OPTIMAL_BATCH = 8


@register_backend("tensorrt")
class TensorRtBackend(Backend):
    """Runs graphs as engines on the first GPU (CUDA_VISIBLE_DEVICES chooses another).

    `kind`: "rtx", "classic", or None for the one that is installed, RTX first. `axes`: (min, opt, max) sizes of
    named axes to build for; "batch" defaults to 1, up to 8, the bundle's largest. `bundle_engines`: True takes
    engines that a bundle brings along, False none, None those that the bundle trusts (see :meth:`Bundle.open`).
    `cache`: where engines are kept; None: the user's cache. `progress`: a bar while an engine is built; None
    shows one on long builds, where stderr is a terminal.

    Raises :class:`UnavailableError` where the package, cuda-bindings, the driver or a GPU is missing.
    """

    def __init__(
        self,
        kind: Kind | None = None,
        *,
        axes: Mapping[str, AxisRange] | None = None,
        bundle_engines: bool | None = None,
        cache: EngineCache | None = None,
        progress: bool | None = None,
    ) -> None:
        if kind is not None and kind not in KINDS:
            raise InputError(f"no kind of TensorRT {kind!r}{did_you_mean(kind, KINDS)}")
        CUDA.check()
        there = installed()
        runtime = KINDS[kind] if kind is not None else next(iter(there), "tensorrt-rtx")
        self._axes = dict(axes or {})
        toolkit, gpu = load_package(runtime), find_gpu()
        kept = EngineCache() if cache is None else cache
        self._supplier = Supplier(toolkit, gpu, kept, bundle_engines, progress)

    @classmethod
    def create(cls, *, provider: str | None, threads: int | None, spinning: bool) -> Self:
        """An instance of the kind `provider`: "rtx" or "classic"."""
        if provider is not None and provider not in KINDS:
            raise InputError(f"no kind of TensorRT {provider!r}{did_you_mean(provider, KINDS)}")
        return cls("rtx" if provider == "rtx" else "classic" if provider == "classic" else None)

    @classmethod
    def availability(cls) -> Availability:
        """The kinds that are installed, where there is a GPU that CUDA reaches."""
        there = installed()
        if not there:
            remedy = f"{RUNTIMES['tensorrt-rtx'].remedy} (or {RUNTIMES['tensorrt'].remedy})"
            return Availability(False, reason="neither TensorRT-RTX nor TensorRT is installed", remedy=remedy)
        try:
            find_gpu()
        except UnavailableError as failure:
            reason, _, remedy = str(failure).partition("; ")
            return Availability(False, reason=reason, remedy=remedy or INSTALL)
        versions: dict[str, str] = {}
        missing: dict[str, str] = {}
        for kind, runtime in KINDS.items():
            try:
                versions[kind] = load_package(runtime).version
            except UnavailableError as failure:
                missing[kind] = str(failure)
        if not versions:
            reason, _, remedy = next(missing[kind] for kind in KINDS if KINDS[kind] in there).rpartition("; ")
            return Availability(False, reason=reason, remedy=remedy)
        devices = tuple(versions)
        return Availability(True, version=versions[devices[0]], devices=devices, missing=missing)

    @classmethod
    def chains(cls) -> dict[str, Chain]:
        """What each kind needs, from the driver to the package."""
        return {kind: chain_of(runtime) for kind, runtime in KINDS.items()}

    @property
    def label(self) -> str:
        """``tensorrt:rtx`` or ``tensorrt:classic``."""
        return f"{self.name}:{'rtx' if self._supplier.toolkit.is_rtx else 'classic'}"

    def open(self, graph: GraphSpec, source: GraphSource, *, precision: Precision) -> Session:
        """Takes the engine from the bundle, or from the cache, or builds it, which may take minutes.

        Raises :class:`BackendError` where the graph can't be built or its engine not be loaded.
        """
        CUDA.use()
        images = image_axes(source.translated() if isinstance(source, EngineSource) else None)
        recipe = Recipe(graph, precision, {"batch": self._batch(source), **images, **self._axes})
        return self._supplier.loaded(recipe, source, lambda engine: self._session(graph, engine, precision))

    def _batch(self, source: GraphSource) -> AxisRange:
        largest = source.largest_batch() if isinstance(source, EngineSource) else LARGEST_BATCH
        return AxisRange(1, min(OPTIMAL_BATCH, largest), largest)

    def _session(self, graph: GraphSpec, data: bytes, precision: Precision) -> Session:
        supplier = self._supplier
        if not supplier.toolkit.is_rtx:
            engine = LoadedEngine(supplier.toolkit, graph, data)
            return TensorRtSession(engine, backend=self.label, precision=precision)
        identity = supplier.kernels_identity(data)
        kernels = supplier.cache.get(identity)
        engine = LoadedEngine(supplier.toolkit, graph, data, kernels)
        return TensorRtSession(
            engine,
            backend=self.label,
            precision=precision,
            kept_kernels=kernels,
            keep_kernels=lambda made: supplier.cache.put(identity, made),
        )


class TensorRtSession(Session):
    """An engine, and buffers for each size and caller. Threads run side by side, each in a stream of its own.

    `kept_kernels` is what `keep_kernels` was last given: TensorRT-RTX compiles for the GPU at hand when it first
    meets a size, and the next process need not.
    """

    survives_fork = False
    waits = False

    def __init__(
        self,
        engine: LoadedEngine,
        *,
        backend: str,
        precision: Precision,
        kept_kernels: bytes | None = None,
        keep_kernels: Callable[[bytes], None] | None = None,
    ) -> None:
        super().__init__(engine.graph, backend=backend, precision=precision)
        self._engine: LoadedEngine | None = engine
        self._kept_kernels = kept_kernels
        self._keep_kernels = keep_kernels

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        with self.bound(check_feeds(self.graph, feeds)) as bound:
            for name, array in feeds.items():
                bound.input(name)[...] = array
            bound.run()
            return {spec.name: bound.output(spec.name).copy() for spec in self.graph.outputs}

    def _bind(self, sizes: Sizes, carry: Carry) -> Bound:
        engine = self._engine  # held until the buffers are made, whoever closes the session meanwhile
        if engine is None:
            raise self.closed_error()
        engine.check_sizes(sizes)
        return TensorRtBound(self, engine, sizes, carry)

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        kernels = engine.kernels() if engine is not None and self._keep_kernels is not None else None
        if kernels and kernels != self._kept_kernels and self._keep_kernels is not None:
            self._keep_kernels(kernels)


class TensorRtBound(Bound):
    """Arrays in page-locked memory, each with its memory on the GPU.

    A run returns when the work is in the stream: the CPU draws the next noise while the GPU computes, and waits
    where it asks for an output, or for an input that is still being copied. A carried state has two places on the
    GPU which take turns as input and output, with a :class:`Lane` for each turn; it comes to the CPU only when it
    is asked for.
    """

    def __init__(self, session: Session, engine: LoadedEngine, sizes: Sizes, carry: Carry) -> None:
        super().__init__(session, sizes, carry)
        graph = session.graph
        self._stream = Stream()
        self._host: dict[str, PinnedArray] = {}
        self._places: dict[str, list[DeviceMemory]] = {}  # of inputs, and of outputs that are not carried
        for spec in (*graph.inputs, *graph.outputs):
            self._host[spec.name] = PinnedArray(tensor_shape(graph, spec, sizes), spec.dtype)
            if spec.name not in self.carry:
                turns = 2 if spec.name in self.carry.values() else 1
                self._places[spec.name] = [self._memory_of(spec) for _ in range(turns)]
        self._lanes = [
            Lane(engine, engine.context(sizes), self._addresses(turn), self._stream)
            for turn in range(2 if self.carry else 1)
        ]
        self._scratch = DeviceMemory(max(lane.memory_needed() for lane in self._lanes))
        for lane in self._lanes:
            lane.use_memory(self._scratch)
        self._turn = 0
        self._changed: set[str] = set()  # inputs on the CPU that the GPU does not have yet
        self._behind: set[str] = set()  # carried inputs whose state only the GPU has
        self._fetched: set[str] = set()  # outputs of the last run that the CPU has
        self._ran = False

    def input(self, name: str) -> Array:
        """The array to write into; waits until its last copy to the GPU is over."""
        self._stream.wait_for_uploads()
        if name in self._behind:
            self._stream.download(self._place(name, self._turn), self._host[name])
            self._behind.discard(name)
        self._changed.add(name)
        return self._host[name].array

    def output(self, name: str) -> Array:
        """The output, copied from the GPU when it is first asked for after a run."""
        if name not in self._fetched and self._ran:
            self._stream.download(self._output_place(name, self._turn), self._host[name])
            self._fetched.add(name)
        return self._host[name].array

    def _run(self) -> None:
        for name in self._changed:
            self._stream.upload(self._host[name], self._place(name, self._turn))
        if self._changed:
            self._stream.mark_uploads()
        self._lanes[self._turn % len(self._lanes)].launch()
        self._turn = (self._turn + 1) % 2
        self._behind = set(self.carry.values())
        self._changed.clear()
        self._fetched.clear()
        self._ran = True

    def close(self) -> None:
        """Waits for the GPU, then frees its memory."""
        self._stream.drain()
        for lane in self._lanes:
            lane.close()
        for memory in (self._scratch, *(each for places in self._places.values() for each in places)):
            memory.close()
        self._stream.close()

    def _memory_of(self, spec: TensorSpec) -> DeviceMemory:
        return DeviceMemory(self._host[spec.name].array.nbytes)

    def _place(self, name: str, turn: int) -> DeviceMemory:
        """Where input `name`, or an output that is not carried, lies in this turn."""
        places = self._places[name]
        return places[turn % len(places)]

    def _output_place(self, name: str, turn: int) -> DeviceMemory:
        """Where the run before `turn` wrote output `name`: where a carried one is read in `turn`."""
        return self._place(self.carry.get(name, name), turn)

    def _addresses(self, turn: int) -> dict[str, int]:
        graph = self.session.graph
        inputs = {spec.name: self._place(spec.name, turn).address for spec in graph.inputs}
        return inputs | {spec.name: self._output_place(spec.name, turn + 1).address for spec in graph.outputs}
