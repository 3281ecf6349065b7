"""Where the engine of a graph comes from: the bundle, the user's cache, or a build of a few seconds to minutes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from gensdk_runtime.backends.base import GraphSource
from gensdk_runtime.backends.tensorrt.build import FLAGS, GraphFile, Recipe, build
from gensdk_runtime.backends.tensorrt.cache import EngineCache, Fetched, Identity
from gensdk_runtime.backends.tensorrt.device import Gpu
from gensdk_runtime.backends.tensorrt.package import Toolkit
from gensdk_runtime.errors import BackendError
from gensdk_runtime.host.progress import Progress
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import EngineSpec

LoadedT = TypeVar("LoadedT")


class UntrustedEngineWarning(UserWarning):
    """A bundle brings an engine along that was made elsewhere; one is built here from its graph instead."""


ANY_GPU = "any"
"""What TensorRT-RTX builds for."""


@runtime_checkable
class EngineSource(Protocol):
    """What a source of a graph may offer beside its file: engines that it brings along."""

    def largest_batch(self) -> int:
        """The largest batch that the model is run with."""

    def translated(self) -> SourceSpec | None:
        """The images that the model translates; None for other models."""

    def engine_specs(self, precision: Precision) -> tuple[EngineSpec, ...]:
        """The engines of this graph in one precision."""

    def trusts(self, spec: EngineSpec) -> bool:
        """True if one of them may be loaded: the user said so, or this machine made it."""

    def read_engine(self, spec: EngineSpec) -> bytes:
        """The checked bytes of one of them."""


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

    def loaded(self, recipe: Recipe, source: GraphSource, load: Callable[[bytes], LoadedT]) -> LoadedT:
        """``load`` of the first engine that it takes.

        An engine of the bundle, or of the cache, that `load` refuses with :class:`BackendError` is left, with a
        warning, for the next one; a fresh build that it refuses is an error.
        """
        if self.bundle_engines is not False and isinstance(source, EngineSource):
            for spec in source.engine_specs(recipe.precision):
                if self._fits(spec, recipe):
                    if not (self.bundle_engines or source.trusts(spec)):
                        warnings.warn(_untrusted(spec), UntrustedEngineWarning, stacklevel=3)
                        continue
                    try:
                        return load(source.read_engine(spec))
                    except BackendError as failure:
                        warnings.warn(printable(f"{spec.file} of the bundle is not used: {failure}"), stacklevel=3)
        onnx = GraphFile.of(source)
        fetched = self.fetched(recipe, onnx)
        try:
            return load(fetched.data)
        except BackendError as failure:
            if fetched.fresh:
                raise
            self.cache.discard(self.identity(recipe, onnx), str(failure))
        return load(self.fetched(recipe, onnx).data)

    def fetched(self, recipe: Recipe, onnx: GraphFile) -> Fetched:
        """The engine from the cache, or built now. Raises :class:`BackendError` as :func:`build` does."""
        title = f"building the {recipe.precision} engine of {recipe.graph.name}"
        with Progress(1, title, show=self.progress) as bar:
            tell = bar.share(1)
            return self.cache.fetch(
                self.identity(recipe, onnx),
                lambda: build(self.toolkit, recipe, onnx, on_progress=tell),
                on_wait=lambda: tell(0.0),
            )

    def identity(self, recipe: Recipe, onnx: GraphFile) -> Identity:
        """All that the engine depends on."""
        sizes = recipe.sizes()
        profile = {
            spec.name: [
                [axis if isinstance(axis, int) else getattr(sizes[axis], pick) for axis in spec.shape]
                for pick in ("minimum", "optimum", "maximum")
            ]
            for spec in recipe.graph.inputs
        }
        tensors = (*recipe.graph.inputs, *recipe.graph.outputs)
        bound = self.gpu if self.gpu is not None and not self.toolkit.is_rtx else None
        return {
            "kind": "engine",
            "graph": onnx.digest(),
            "precision": recipe.precision,
            "signature": [[spec.name, spec.dtype, list(spec.shape)] for spec in tensors],
            "profile": profile,
            "flags": list(FLAGS),
            "runtime": self.toolkit.runtime,
            "version": self.toolkit.version,
            "gpu": ANY_GPU if bound is None else bound.model,
            "driver": None if bound is None else bound.driver,
        }

    def kernels_identity(self, engine: bytes) -> Identity:
        """What the kernels that TensorRT-RTX compiles for an engine depend on."""
        return {
            "kind": "kernels",
            "engine": hashlib.sha256(engine).hexdigest(),
            "version": self.toolkit.version,
            "gpu": None if self.gpu is None else self.gpu.model,
            "driver": None if self.gpu is None else self.gpu.driver,
        }

    def _fits(self, spec: EngineSpec, recipe: Recipe) -> bool:
        """True if an engine of a bundle is for this package, this GPU and the sizes that are wanted."""
        batch = recipe.sizes().get("batch")
        mine = (spec.runtime, spec.version) == (self.toolkit.runtime, self.toolkit.version)
        here = self.toolkit.is_rtx or (self.gpu is not None and spec.gpu == self.gpu.model)
        wide = batch is None or (spec.min_batch <= batch.minimum and batch.maximum <= spec.max_batch)
        return mine and here and wide


def _untrusted(spec: EngineSpec) -> str:
    return printable(
        f"{spec.file} of the bundle was not made on this machine, and an engine is code: one is built from the "
        "graph instead, which takes a while once; if you trust the bundle's maker, load it with "
        "trust_engines=True (--trust-engines)"
    )
