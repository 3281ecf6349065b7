"""TensorRT-RTX and classic TensorRT: engines on an NVIDIA GPU, built here unless the bundle brings one along.

An engine is native code, of the bundle's maker: one that was not made on this machine is taken only where the user
says so (``Generator.load(..., trust_engines=True)``), and built from the graph otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Self, TypeVar

from gensdk_runtime.arguments import shown
from gensdk_runtime.backends import BACKGROUND, register_backend
from gensdk_runtime.backends.base import Availability, Backend, Feeds, GraphSource, Session, check_feeds
from gensdk_runtime.backends.bound import Array, Bound, Carry, Sizes
from gensdk_runtime.backends.chain import Chain
from gensdk_runtime.backends.cuda.device import Gpu
from gensdk_runtime.backends.cuda.noise_kernels import NoiseKernels
from gensdk_runtime.backends.cuda.room import frees_when_short, idle_bytes, with_room
from gensdk_runtime.backends.tensorrt.bound import TensorRtBound
from gensdk_runtime.backends.tensorrt.cache import EngineCache
from gensdk_runtime.backends.tensorrt.engine import LoadedEngine, Opened
from gensdk_runtime.backends.tensorrt.needs import chain_of, check_fits, check_here, gpu_for
from gensdk_runtime.backends.tensorrt.package import RUNTIMES, EngineRuntime, installed, load_package
from gensdk_runtime.backends.tensorrt.recipe import AxisRange, Recipe, batch_axis, element_axes, image_axes
from gensdk_runtime.backends.tensorrt.source import HeldSource
from gensdk_runtime.backends.tensorrt.supply import Supplier, supports
from gensdk_runtime.errors import BackendError, InputError, OutOfMemoryError, UnavailableError, did_you_mean
from gensdk_runtime.host.forking import CUDA, new_lock
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec

TakenT = TypeVar("TakenT")
Kind = Literal["rtx", "classic"]
KINDS: Mapping[str, EngineRuntime] = {"rtx": "tensorrt-rtx", "classic": "tensorrt"}
"""What stands behind the colon, as in ``tensorrt:rtx``, in the order in which it is preferred."""


@register_backend("tensorrt")
class TensorRtBackend(Backend):
    """Runs graphs as engines on the first GPU (CUDA_VISIBLE_DEVICES chooses another).

    `kind`: "rtx", "classic", or None for the one that is installed and runs on this GPU, RTX first. `axes`: (min,
    opt, max) sizes of named axes to build for; "batch" defaults to 1 .. the bundle's largest. `bundle_engines`:
    True takes engines that a bundle brings along, False none, None those that the bundle trusts (see
    :meth:`Bundle.open`). `cache`: where engines are kept; None: the user's cache. `progress`: a bar while an
    engine is built; None shows one on long builds, where stderr is a terminal.

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
        if kind is not None:
            _check_kind(kind)
        CUDA.check()
        gpu = gpu_for(KINDS[kind] if kind is not None else next(iter(installed()), "tensorrt-rtx"))
        runtime = KINDS[kind] if kind is not None else _preferred(gpu)
        check_fits(runtime, gpu)
        self._axes = dict(axes or {})
        self._kernels = NoiseKernels()
        kept = EngineCache() if cache is None else cache
        self._supplier = Supplier(load_package(runtime), gpu, kept, bundle_engines, progress)

    @classmethod
    def create(cls, *, provider: str | None, threads: int | None, spinning: bool) -> Self:
        """An instance of the kind `provider`: "rtx" or "classic"."""
        if provider is not None:
            _check_kind(provider)
        return cls("rtx" if provider == "rtx" else "classic" if provider == "classic" else None)

    @classmethod
    def check_here(cls, provider: str | None) -> None:
        """See :class:`Backend`."""
        if provider is not None:
            _check_kind(provider)
            check_here(KINDS[provider])
        else:
            check_here(*(installed() or RUNTIMES))

    @classmethod
    def availability(cls) -> Availability:
        """The kinds that are installed, where there is a GPU that CUDA reaches."""
        there = installed()
        if not there:
            remedy = f"{RUNTIMES['tensorrt-rtx'].remedy} (or {RUNTIMES['tensorrt'].remedy})"
            return Availability(False, reason="neither TensorRT-RTX nor TensorRT is installed", remedy=remedy)
        try:
            gpu = gpu_for(there[0])
        except UnavailableError as failure:
            reason, _, remedy = str(failure).rpartition("; ")
            return Availability(False, reason=reason, remedy=remedy)
        versions: dict[str, str] = {}
        missing: dict[str, str] = {}
        for kind, runtime in KINDS.items():
            try:
                check_fits(runtime, gpu)
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
        """A session that takes the engine from the bundle, or from the cache, or builds it, at its first run (or
        :meth:`Session.load`): that may take minutes, and not every graph of a bundle is used.

        Raises :class:`BackendError` where the bundle's files can't be read; and the session, where the graph can't
        be built or its engine not be loaded.
        """
        CUDA.use()
        supplier = self._supplier
        is_rtx, held = supplier.toolkit.is_rtx, HeldSource.of(source)
        images = image_axes(held.translated(), bounded=not is_rtx)
        batch = batch_axis(held.largest_batch(), images=bool(images), is_rtx=is_rtx)
        own = {**images, **element_axes(held.elements())}
        recipe = Recipe(graph, precision, {"batch": batch, **own, **self._axes})
        recipe.sizes()  # an axis that has none is said now
        taken = supplier.chosen(recipe, source)
        held = held.holding(taken)
        memory = supplier.gpu.memory if supplier.gpu is not None else 0
        return TensorRtSession(
            graph,
            lambda: supplier.loaded(recipe, held, lambda data: self._engine(graph, data), taken=taken),
            backend=self.label,
            precision=precision,
            kernels=self._kernels,
            largest_batch=recipe.axes["batch"].maximum,
            idle_bytes=idle_bytes(memory),
        )

    def _engine(self, graph: GraphSpec, data: bytes) -> Opened:
        supplier = self._supplier
        if not supplier.toolkit.is_rtx:
            return Opened(LoadedEngine(supplier.toolkit, graph, data))
        identity = supplier.kernels_identity(data)
        kernels = supplier.cache.get(identity)
        engine = LoadedEngine(supplier.toolkit, graph, data, kernels)
        return Opened(engine, kernels, lambda made: supplier.cache.put(identity, made))


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        known = (*KINDS, BACKGROUND.removeprefix(":"))
        raise InputError(f"no kind of TensorRT {shown(kind)!r}{did_you_mean(kind[:80], known)}")


def _preferred(gpu: Gpu) -> EngineRuntime:
    """Of what is installed, the first that runs on this GPU; where nothing is, what errors are about."""
    there = installed()
    return next((each for each in there if supports(each, gpu)), next(iter(there), "tensorrt-rtx"))


class TensorRtSession(Session):
    """An engine, loaded by `load` when it is first used, and buffers for each size and caller. Threads run side by
    side, each in a stream of its own.

    Where the GPU has no memory left, the buffers that no run uses are freed, those of other sessions too.
    """

    survives_fork = False
    waits = False

    def __init__(
        self,
        graph: GraphSpec,
        load: Callable[[], Opened],
        *,
        backend: str,
        precision: Precision,
        kernels: NoiseKernels,
        largest_batch: int,
        idle_bytes: int,
    ) -> None:
        super().__init__(graph, backend=backend, precision=precision)
        self.idle_bytes = idle_bytes
        self._kernels, self._largest_batch = kernels, largest_batch
        self._load: Callable[[], Opened] | None = load
        self._opened: Opened | None = None
        self._failure: BackendError | None = None
        self._loading = new_lock()
        frees_when_short(self)

    def load(self) -> None:
        """See :class:`Session`."""
        self._loaded()

    def largest(self, axis: str, sizes: Sizes) -> int | None:
        """As the engine's profiles have it."""
        return self._loaded().engine.largest(axis, sizes)

    def padded_batch(self, count: int) -> int:
        """The next power of two, or three quarters of it: a size that was not met before takes memory, contexts,
        and captured or compiled work."""
        power = 1 << (count - 1).bit_length()
        padded = 3 * power // 4 if power >= 4 and count <= 3 * power // 4 else power
        return max(count, min(padded, self._largest_batch))

    def keep_kernels(self) -> None:
        """See :class:`Opened`."""
        opened = self._opened
        if opened is not None:
            opened.keep_kernels()

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        with self.bound(check_feeds(self.graph, feeds)) as bound:
            for name, array in feeds.items():
                bound.input(name)[...] = array
            bound.run()
            return {spec.name: bound.output(spec.name).copy() for spec in self.graph.outputs}

    def _bind(self, sizes: Sizes, carry: Carry) -> Bound:
        engine = self._loaded().engine  # held until the buffers are made, whoever closes the session meanwhile
        engine.profile(sizes)
        return with_room(
            lambda: TensorRtBound(self, engine, sizes, carry, kernels=self._kernels, used=self.keep_kernels)
        )

    def _loaded(self) -> Opened:
        opened = self._opened
        if opened is not None:
            return opened
        with self._loading:
            if self._opened is None:
                self._opened = self._first()
            if self._closed:  # meanwhile
                self._opened = None
                raise self.closed_error()
            return self._opened

    def _first(self) -> Opened:
        """Loads; what can't be built is not tried again at each run."""
        if self._failure is not None and not self._closed:
            raise type(self._failure)(*self._failure.args)
        if self._closed or self._load is None:
            raise self.closed_error()
        try:
            opened = with_room(self._load)
        except OutOfMemoryError:
            raise
        except BackendError as failure:
            self._failure, self._load = failure, None
            raise
        self._load = None
        return opened

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.keep_kernels()
