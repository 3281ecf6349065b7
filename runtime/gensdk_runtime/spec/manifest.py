"""What a bundle says about itself: typed, frozen, versioned, strict about unknown keys.

The model (:class:`gensdk_runtime.spec.model.ModelSpec`) is its graphs, its program, what it makes and what it can
be asked for; :class:`Manifest` is what a bundle *packs*: the model, the files of each precision, proofs,
provenance, checksums. A manifest whose `files` is empty is a draft:
:func:`gensdk_runtime.bundles.writer.write_bundle` seals it with the checksums of what it writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gensdk_runtime.errors import ManifestError
from gensdk_runtime.spec.fields import BundlePath, Finite, Name, Precision, check_case
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_runtime.spec.strict import StrictModel
from gensdk_runtime.spec.upgrade import upgraded

SCHEMA_VERSION = 2
"""Raised when a reader of the older schema could misread the newer one."""

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 * 2**20


class FileEntry(StrictModel):
    """Checksum and size in bytes of one file of a bundle; no file is empty."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1, le=2**40)]


class EngineSpec(StrictModel):
    """An ahead-of-time engine of one graph in one precision, for the batch sizes of its profiles.

    `gpu`: the model that it was built for, for classic TensorRT; empty: all that TensorRT-RTX builds for. `axes`:
    the (smallest, best, largest) sizes of other named axes, such as height and width, where they were noted.
    """

    graph: Name
    precision: Precision
    file: BundlePath
    runtime: Literal["tensorrt-rtx", "tensorrt"]
    version: str
    gpu: str = ""
    min_batch: Annotated[int, Field(ge=1)]
    opt_batch: Annotated[int, Field(ge=1)]
    max_batch: Annotated[int, Field(ge=1)]
    axes: dict[Name, tuple[int, int, int]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            raise ValueError(f"engine {self.file!r}: min_batch <= opt_batch <= max_batch does not hold")
        for axis, sizes in self.axes.items():
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise ValueError(f"engine {self.file!r}: sizes of axis {axis!r} do not grow: {sizes}")
        return self


class OneCallSpec(StrictModel):
    """The whole sampler as one graph, for one call; see :mod:`gensdk_runtime.programs.one_call`.

    `files`: its file in each precision. `settings`: those that are part of the graph, of a diffusion model.
    """

    graph: GraphSpec
    files: dict[Precision, BundlePath]
    settings: DiffusionSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "fp32" not in self.files:
            raise ValueError(f"the one-call graph {self.graph.name!r} has no fp32 file")
        return self


class Precision16Report(StrictModel):
    """How the fp16 graphs were made: the fp32 islands that measurement asked for, and what was measured."""

    islands: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    max_abs_activation: Finite = 0.0
    max_abs_difference: dict[str, Finite] = Field(default_factory=dict)


class Manifest(StrictModel):
    """``manifest.json``: the model, its files in each precision, its proofs, and a checksum of every file.

    `files` lists every file of the bundle but the manifest itself; it is empty in a draft.
    """

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    gensdk_version: str = ""
    model: ModelSpec
    graph_files: dict[Name, dict[Precision, BundlePath]]
    one_call: OneCallSpec | None = None
    golden: BundlePath | None = None
    engines: tuple[EngineSpec, ...] = ()
    fp16: Precision16Report | None = None
    provenance: Provenance = Provenance()
    files: dict[BundlePath, FileEntry] = Field(default_factory=dict, max_length=512)

    @model_validator(mode="after")
    def _check(self) -> Self:
        graphs = [graph.name for graph in self.model.graphs]
        for name in graphs:
            if "fp32" not in self.graph_files.get(name, {}):
                raise ValueError(f"graph {name!r} has no fp32 file in graph_files")
        sampler = [] if self.one_call is None else [self.one_call.graph.name]
        for name, known in (
            *((name, graphs) for name in self.graph_files),
            *((engine.graph, (*graphs, *sampler)) for engine in self.engines),
        ):
            if name not in known:
                raise ValueError(f"graph {name!r} has a file or an engine but is no graph of the model")
        if self.one_call is not None and self.one_call.graph.name in graphs:
            raise ValueError(f"the one-call graph has the name of another graph, {self.one_call.graph.name!r}")
        self._check_files()
        return self

    def _check_files(self) -> None:
        used = self.used_files
        if MANIFEST_FILE in (*self.files, *used):
            raise ValueError(f"{MANIFEST_FILE!r} can't be one of the files that it lists")
        for path in used:
            if self.files and path not in self.files:
                raise ValueError(f"{path!r} is used but not listed in files")
        check_case(self.files)
        for path in self.files:
            for folder in PurePosixPath(path).parents:
                if str(folder) in self.files:
                    raise ValueError(f"{str(folder)!r} is listed as a file, but {path!r} lies inside it")

    @property
    def used_files(self) -> tuple[str, ...]:
        """The files of graphs, outputs, proofs and engines; a bundle may hold others, such as its model card."""
        graphs = [path for files in self.all_graph_files.values() for path in files.values()]
        golden = [self.golden] if self.golden else []
        return (*graphs, *self.model.files, *golden, *(engine.file for engine in self.engines))

    @property
    def all_graph_files(self) -> Mapping[str, Mapping[Precision, BundlePath]]:
        """The files of every graph, the one-call graph among them."""
        own = {} if self.one_call is None else {self.one_call.graph.name: self.one_call.files}
        return {**self.graph_files, **own}

    def graph(self, name: str) -> GraphSpec:
        """The signature of any graph that has files; KeyError where there is none."""
        if self.one_call is not None and name == self.one_call.graph.name:
            return self.one_call.graph
        return self.model.graph(name)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that every graph of the program has."""
        known: tuple[Precision, ...] = ("fp32", "fp16")
        return tuple(p for p in known if all(p in files for files in self.graph_files.values()))

    def with_files(self, files: Mapping[str, FileEntry]) -> Manifest:
        """This manifest with the checksums of `files`; :class:`ManifestError` where a used file is not there."""
        data = self.model_dump(mode="json")
        data["files"] = {path: entry.model_dump() for path, entry in files.items()}
        return Manifest.from_dict(data, what="manifest", error=ManifestError)

    @classmethod
    def parse(cls, text: bytes, *, what: str) -> Manifest:
        """Reads a manifest, of an older schema too; :class:`ManifestError` says what is wrong, a newer schema
        first of all."""
        if len(text) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{what}: {len(text)} bytes, at most {MAX_MANIFEST_BYTES} are read")
        try:
            raw = json.loads(text, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError):
            raise ManifestError(f"{what}: not readable as JSON; export the bundle again") from None
        version = raw.get("schema_version") if isinstance(raw, dict) else 0
        if version is None:
            raise ManifestError(f"{what}: no schema_version; is it the manifest of a gensdk bundle?")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ManifestError(
                f"{what}: schema version {str(version)[:20]}, but this gensdk reads up to {SCHEMA_VERSION};"
                " upgrade gensdk"
            )
        if version != SCHEMA_VERSION:
            text = json.dumps(upgraded(raw)).encode()
        manifest = cls.from_json(text, what=what, error=ManifestError)
        if not manifest.files:
            raise ManifestError(f"{what}: it is a draft, without checksums; export the bundle again")
        return manifest


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses what two readers could understand in two ways."""
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands twice")
    return data
