"""Where the engine of a graph comes from: the bundle, the user's cache, or a build of a few seconds to minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gensdk_runtime.backends.base import GraphSource
from gensdk_runtime.backends.cuda.device import Gpu
from gensdk_runtime.backends.tensorrt.build import ANYWHERE, FLAGS, GraphFile, Target, build
from gensdk_runtime.backends.tensorrt.cache import EngineCache, Fetched, Identity
from gensdk_runtime.backends.tensorrt.package import RUNTIMES, EngineRuntime, Toolkit
from gensdk_runtime.backends.tensorrt.recipe import Recipe, profile_shapes
from gensdk_runtime.backends.tensorrt.source import EngineSource
from gensdk_runtime.errors import (
    BackendError,
    OutOfMemoryError,
    UnavailableError,
    tell,
)
from gensdk_runtime.host.progress import Progress
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.manifest import EngineSpec

LoadedT = TypeVar("LoadedT")


class UntrustedEngineWarning(UserWarning):
    """A bundle brings an engine along that was made elsewhere; one is built here from its graph instead."""


ANY_GPU = "any"
"""What TensorRT-RTX builds for."""
PORTABLE_FROM, TURING = (8, 0), (7, 5)
"""The compute capability from which on TensorRT-RTX's engines run without being built for it by name, and the only
older one that it builds for (without products of float32 matrices)."""
DATA_CENTER = (9, 10, 11)
"""Major compute capabilities (Hopper, Blackwell in data centers, Thor) that TensorRT-RTX leaves to TensorRT."""


@dataclass(frozen=True)
class Supplier:
    """Gives engines made with `toolkit` for `gpu` (None: the build needs none, and nothing is going to run).

    `bundle_engines`: True takes those that a bundle brings along, False none, None those that the source trusts:
    an engine is code, and whoever made it could have put anything into it. `progress`: a bar on long builds; None
    shows it where stderr is a terminal.
    """

    toolkit: Toolkit
    gpu: Gpu | None
    cache: EngineCache
    bundle_engines: bool | None = None
    progress: bool | None = None

    def chosen(self, recipe: Recipe, source: GraphSource) -> tuple[EngineSpec, ...]:
        """The engines of the bundle that may be taken, in its order; what is left out, and why, is told."""
        if self.bundle_engines is False or not isinstance(source, EngineSource):
            return ()
        taken, left = [], []
        for spec in source.engine_specs(recipe.precision):
            reason = self._unfit(spec, recipe)
            if reason:
                left.append(f"{spec.file} {reason}")
            elif self.bundle_engines or source.trusts(spec):
                taken.append(spec)
            else:
                tell(_untrusted(spec), UntrustedEngineWarning)
        if left and not taken:
            tell(f"{'; '.join(left)}: an engine is built from the graph instead, which takes a while once")
        return tuple(taken)

    def loaded(
        self,
        recipe: Recipe,
        source: GraphSource,
        load: Callable[[bytes], LoadedT],
        *,
        taken: tuple[EngineSpec, ...] | None = None,
    ) -> LoadedT:
        """``load`` of the first engine that it takes; `taken`: what :meth:`chosen` gave before.

        An engine of the bundle, or of the cache, that `load` refuses with :class:`BackendError` is left, with a
        warning, for the next one; a fresh build that it refuses is an error, as is memory that does not suffice.
        """
        for spec in self.chosen(recipe, source) if taken is None else taken:
            if isinstance(source, EngineSource):
                try:
                    return load(source.read_engine(spec))
                except OutOfMemoryError:
                    raise
                except BackendError as failure:
                    tell(printable(f"{spec.file} of the bundle is not used: {failure}"))
        onnx = GraphFile.of(source)
        fetched = self.fetched(recipe, onnx)
        try:
            return load(fetched.data)
        except OutOfMemoryError:
            raise
        except BackendError as failure:
            if fetched.fresh:
                raise
            self.cache.discard(self.identity(recipe, onnx), str(failure))
        return load(self.fetched(recipe, onnx).data)

    def fetched(self, recipe: Recipe, onnx: GraphFile) -> Fetched:
        """The engine from the cache, or built now. Raises :class:`BackendError` as :func:`build` does."""
        title = f"building the {recipe.precision} engine of {recipe.graph.name}"
        timings = (
            None if self.toolkit.is_rtx or self.gpu is None else KeptTimings(self.cache, self._here("timings"))
        )
        with Progress(1, title, show=self.progress) as bar:
            tell_part = bar.share(1)
            return self.cache.fetch(
                self.identity(recipe, onnx),
                lambda: build(
                    self.toolkit, recipe, onnx, target=self.target, timings=timings, on_progress=tell_part
                ),
                on_wait=lambda: tell_part(0.0),
            )

    @property
    def target(self) -> Target:
        """All GPUs that TensorRT-RTX builds for by default, where the one at hand is among them; or this GPU."""
        if self.gpu is None:
            return ANYWHERE
        if self.toolkit.is_rtx:
            return ANYWHERE if self.gpu.capability >= PORTABLE_FROM else Target(capability=self.gpu.capability)
        return Target(workspace=self.gpu.memory // 2 or None)

    def identity(self, recipe: Recipe, onnx: GraphFile) -> Identity:
        """All that the engine depends on."""
        tensors = (*recipe.graph.inputs, *recipe.graph.outputs)
        bound = self.gpu if self.gpu is not None and not self.toolkit.is_rtx else None
        target = self.target
        return {
            "kind": "engine",
            "graph": onnx.digest(),
            "precision": recipe.precision,
            "signature": [[spec.name, spec.dtype, list(spec.shape)] for spec in tensors],
            "profiles": [
                {
                    name: [list(shape) for shape in shapes]
                    for name, shapes in profile_shapes(recipe.graph, each).items()
                }
                for each in recipe.profiles(is_rtx=self.toolkit.is_rtx)
            ],
            "flags": list(FLAGS),
            "runtime": self.toolkit.runtime,
            "version": self.toolkit.version,
            "gpu": ANY_GPU if bound is None else bound.model,
            "driver": None if bound is None else bound.driver,
            "capability": None if target.capability is None else list(target.capability),
            "workspace": target.workspace,
        }

    def kernels_identity(self, engine: bytes) -> Identity:
        """What the kernels that TensorRT-RTX compiles for an engine depend on."""
        return {**self._here("kernels"), "engine": hashlib.sha256(engine).hexdigest()}

    def _here(self, kind: str) -> Identity:
        return {
            "kind": kind,
            "version": self.toolkit.version,
            "gpu": None if self.gpu is None else self.gpu.model,
            "driver": None if self.gpu is None else self.gpu.driver,
        }

    def _unfit(self, spec: EngineSpec, recipe: Recipe) -> str:
        """Why an engine of a bundle is not for this package, this GPU or the wanted sizes; "" if it is."""
        mine = f"{self.toolkit.runtime} {self.toolkit.version}"
        if (spec.runtime, spec.version) != (self.toolkit.runtime, self.toolkit.version):
            return f"was built by {spec.runtime} {spec.version}, and {mine} is installed"
        if self.target.capability is not None:
            return f"was built for compute capability 8.0 and above, and this GPU is the {self._gpu_model}"
        if not self.toolkit.is_rtx and spec.gpu != self._gpu_model:
            return (
                f"was built for the {spec.gpu or 'GPU of another machine'}, and this GPU is the {self._gpu_model}"
            )
        batch = recipe.sizes().get("batch")
        if batch is not None and not (spec.min_batch <= batch.minimum and batch.maximum <= spec.max_batch):
            had, wanted = f"{spec.min_batch} to {spec.max_batch}", f"{batch.minimum} to {batch.maximum}"
            return f"takes batches of {had}, and {wanted} are wanted"
        return ""

    @property
    def _gpu_model(self) -> str:
        return "none" if self.gpu is None else self.gpu.model


def runs_on(runtime: EngineRuntime, capability: tuple[int, int]) -> bool:
    """True if `runtime` runs something on a GPU of this compute capability."""
    return capability >= TURING and not (runtime == "tensorrt-rtx" and capability[0] in DATA_CENTER)


def supports(runtime: EngineRuntime, gpu: Gpu) -> bool:
    """True if `runtime` has what this GPU needs; TensorRT-RTX on Turing only as far as its graphs allow."""
    if runtime != "tensorrt-rtx":
        return True
    return gpu.capability >= PORTABLE_FROM and runs_on(runtime, gpu.capability)


def check_supported(runtime: EngineRuntime, gpu: Gpu) -> None:
    """Raises :class:`UnavailableError` for a GPU on which `runtime` runs nothing."""
    if runtime == "tensorrt-rtx" and not runs_on(runtime, gpu.capability):
        raise UnavailableError(
            f"TensorRT-RTX has no kernels for the {gpu.model}; {RUNTIMES['tensorrt'].remedy}, and use "
            "backend='tensorrt:classic'"
        )


@dataclass(frozen=True)
class KeptTimings:
    """What the classic builder measured on this GPU, as an entry of the cache."""

    cache: EngineCache
    identity: Identity

    def load(self) -> bytes:
        """See :class:`Timings`."""
        return self.cache.get(self.identity) or b""

    def keep(self, measured: bytes) -> None:
        """See :class:`Timings`."""
        if measured and measured != self.load():
            self.cache.put(self.identity, measured)


def _untrusted(spec: EngineSpec) -> str:
    return printable(
        f"{spec.file} of the bundle was not made on this machine, and an engine is code: one is built from the "
        "graph instead, which takes a while once; if you trust the bundle's maker, load it with "
        "trust_engines=True (--trust-engines)"
    )
