"""What a bundle offers beside the file of a graph, and both held for a build that comes later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from gensdk_runtime.backends.base import GraphSource
from gensdk_runtime.backends.tensorrt.build import GraphFile
from gensdk_runtime.errors import BackendError, BundleError, IntegrityError
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import EngineSpec

LARGEST_BATCH = 64
"""Of engines for a source that does not say how large the model's batches may be."""


@runtime_checkable
class EngineSource(Protocol):
    """What a source of a graph may offer beside its file: engines that it brings along."""

    def largest_batch(self) -> int:
        """The largest batch that the model is run with."""

    def translated(self) -> SourceSpec | None:
        """The images that the model translates; None for other models."""

    def elements(self) -> int | None:
        """The elements of the sequences that the model makes; None for other models."""

    def engine_specs(self, precision: Precision) -> tuple[EngineSpec, ...]:
        """The engines of this graph in one precision."""

    def trusts(self, spec: EngineSpec) -> bool:
        """True if one of them may be loaded: the user said so, or this machine made it."""

    def read_engine(self, spec: EngineSpec) -> bytes:
        """The checked bytes of one of them."""


@dataclass(frozen=True)
class HeldSource:
    """A graph's file, read at once, for a backend that builds later: its bundle may be closed by then.

    `engines`: by their paths those that are held too; others may be large, and are read when they are asked for.
    """

    onnx: GraphFile
    source: GraphSource
    engines: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, source: GraphSource) -> HeldSource:
        """Reads the file."""
        return cls(GraphFile.of(source), source)

    def holding(self, taken: Sequence[EngineSpec]) -> HeldSource:
        """The same with the first of the engines that are `taken`, as the next ones are only tried if it fails."""
        return replace(self, engines={spec.file: self.read_engine(spec) for spec in taken[:1]})

    @property
    def path(self) -> Path | None:
        """See :class:`GraphSource`."""
        return self.onnx.path

    def read(self) -> bytes:
        """See :class:`GraphSource`."""
        return self.onnx.data

    def largest_batch(self) -> int:
        """See :class:`EngineSource`."""
        return self.source.largest_batch() if isinstance(self.source, EngineSource) else LARGEST_BATCH

    def translated(self) -> SourceSpec | None:
        """See :class:`EngineSource`."""
        return self.source.translated() if isinstance(self.source, EngineSource) else None

    def elements(self) -> int | None:
        """See :class:`EngineSource`."""
        return self.source.elements() if isinstance(self.source, EngineSource) else None

    def engine_specs(self, precision: Precision) -> tuple[EngineSpec, ...]:
        """See :class:`EngineSource`."""
        return self.source.engine_specs(precision) if isinstance(self.source, EngineSource) else ()

    def trusts(self, spec: EngineSpec) -> bool:
        """See :class:`EngineSource`."""
        return isinstance(self.source, EngineSource) and self.source.trusts(spec)

    def read_engine(self, spec: EngineSpec) -> bytes:
        """See :class:`EngineSource`; :class:`BackendError` where the bundle was closed."""
        if spec.file in self.engines:
            return self.engines[spec.file]
        if not isinstance(self.source, EngineSource):
            raise BackendError("the graph's bundle holds no engines")
        try:
            return self.source.read_engine(spec)
        except IntegrityError:
            raise
        except BundleError as failure:
            raise BackendError(str(failure)) from None
