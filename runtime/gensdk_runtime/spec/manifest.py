"""What a bundle says about itself: typed, frozen, versioned, strict about unknown keys.

:class:`ModelSpec` is what a model *is* (graphs, program, output); :class:`Manifest` is what a bundle *packs*
(the model, the files of each precision, proofs, provenance, checksums). A manifest whose `files` is empty is a
draft: :func:`gensdk_runtime.bundles.writer.write_bundle` seals it with the checksums of what it writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.settings import AscentSettings, DiffusionSettings
from gensdk_runtime.spec.signature import (
    BundlePath,
    Finite,
    GraphSpec,
    ImageSpec,
    Name,
    PointsSpec,
    Precision,
    SourceSpec,
)
from gensdk_runtime.spec.strict import StrictModel

SCHEMA_VERSION = 1
"""Raised when a reader of the older schema could misread the newer one."""

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 * 2**20
PredictionType = Literal["epsilon", "v_prediction"]


class FeedforwardSpec(StrictModel):
    """One run of `graph`: noise, and a label where the model has classes, become images or points.

    The graph's first noise input is the latent; its output ``image``, or ``points``, is the result. A translation
    model (one with a :class:`SourceSpec`) takes ``source`` in place of noise: float32 [B, C, H, W], or uint8 [B,
    H, W, C].

    `encoder`, the way back: ``images`` float32 [B, C, H, W] in the model's value range, and ``label`` int64 [B]
    where it wants one, to ``latent`` [B, ...] of the shape of `graph`'s latent.
    `classifier`: ``images`` to ``logits`` [B, K], one for each class.
    """

    kind: Literal["feedforward"] = "feedforward"
    graph: Name
    encoder: Name | None = None
    classifier: Name | None = None

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs that there are, by name; the one that makes images first."""
        names = (self.graph, self.encoder, self.classifier)
        return tuple(name for name in names if name is not None)


class ScheduleSpec(StrictModel):
    """A noise schedule over `num_train_timesteps`; see :mod:`gensdk_runtime.programs.schedules`.

    `betas`: of the kind "betas", which no formula gives, beta of each time step.
    """

    kind: Literal["linear", "scaled_linear", "cosine", "betas"] = "linear"
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    betas: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(max_length=10_000)] | None = None

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without betas where there are none, as it was before there could be any."""
        data: dict[str, Any] = whole(self)
        return {name: value for name, value in data.items() if name != "betas" or value is not None}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "betas") != (self.betas is not None):
            raise ValueError("a schedule has betas where its kind is 'betas', and only there")
        if self.betas is not None and len(self.betas) != self.num_train_timesteps:
            raise ValueError(f"{len(self.betas)} betas for {self.num_train_timesteps} time steps")
        return self


class DiffusionSpec(StrictModel):
    """A solver over `graph`, the step graph, which holds the denoiser *and* the solver's update.

    Inputs of the step graph (B samples; G = 2 where guidance runs both halves, otherwise 1): ``sample`` [B, C, H,
    W] and ``previous_x0`` [B, C, H, W] (state), ``timestep`` [B], ``noise`` [B, C, H, W], ``coefficients`` [B, 8]
    (rows of :class:`gensdk_runtime.programs.solvers.SolverTable`); and for a model with classes ``label`` int64
    [G, B], where the class `num_classes` means "none", with ``guidance_weights`` [G, B]. Outputs: ``next_sample``
    and ``next_previous_x0`` [B, C, H, W]. So each sample may be at a step of its own.

    `embedding_graph`, run for all time steps at once: ``timestep`` [R], and for a model with classes ``label``
    int64 [R], to ``embedding`` [R, F]. The step graph then takes ``embedding`` [B, F], or with classes [G, B, F],
    in place of ``timestep`` and ``label``.
    `shallow_graph`: a cheap step that takes ``deep_features`` (with classes [G, B, ...], otherwise [B, ...]) from
    an earlier run of the step graph, which has them as an output; in all else it is as the step graph.
    `prediction_type`, as diffusers calls it: what the denoiser tells. The graphs are the same: the coefficients
    of the solver differ.

    The first contract, of older bundles, has one step for all samples: ``timestep`` int64 [1], ``coefficients``
    [8], ``guidance_weights`` [G]; the embedding graph ``timestep`` int64 [1] and ``label`` int64 [L] to [1, F] or
    [L, F], of which the step graph takes [1, F] or [G, B, F].
    """

    kind: Literal["diffusion"] = "diffusion"
    graph: Name
    embedding_graph: Name | None = None
    shallow_graph: Name | None = None
    schedule: ScheduleSpec
    prediction_type: PredictionType = "epsilon"
    defaults: DiffusionSettings = DiffusionSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.defaults.cache_interval > 1 and self.shallow_graph is None:
            raise ValueError("a default cache_interval over 1 needs a shallow_graph")
        return self

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs that there are, by name."""
        names = (self.graph, self.embedding_graph, self.shallow_graph)
        return tuple(name for name in names if name is not None)


class AutoregressiveSpec(StrictModel):
    """Pixel after pixel, rows from the top, in `levels` grey levels, with all caches as explicit state.

    `row_graph`, once a row: ``row`` [B, C, W], the finished row above (zeros at the top), states, ``label``
    int64 [B] where the model has classes; gives ``context`` [W, B, F] and the next states.
    `pixel_graph`, once a pixel: ``pixel`` [B, C], the one to the left (zeros at the edge), ``context``
    [B, F], ``uniform`` [B, C], states, ``label``; gives ``next_pixel`` [B, C] and the next states. States
    of the row graph start at zero with the image, those of the pixel graph with the row.
    `likelihood_graph`: ``images`` [B, C, H, W], ``label``; gives ``log_likelihood`` [B] in nats.
    """

    kind: Literal["autoregressive"] = "autoregressive"
    row_graph: Name
    pixel_graph: Name
    likelihood_graph: Name
    levels: Annotated[int, Field(ge=2, le=256)]

    @property
    def graphs(self) -> tuple[str, ...]:
        """The three graphs, by name."""
        return (self.row_graph, self.pixel_graph, self.likelihood_graph)

    @property
    def sampling_graphs(self) -> tuple[str, ...]:
        """The graphs that draw, by name."""
        return (self.row_graph, self.pixel_graph)


class AscentSpec(StrictModel):
    """Gradient steps on an input, the gradient itself being a graph.

    `objectives`: gradient graphs by what their objective is called; the first is the default. Inputs: ``variable``
    [B, ...], what is optimized; and as the objective needs them ``target`` [B, C, H, W], the image to find again,
    ``target_features`` [B, ...], which `features` (a graph from ``image``) gives of it once, and ``channels`` [K],
    the weight of each channel. Outputs: ``objective`` [B] and ``gradient``, shaped as ``variable``.

    The variable starts as the image that is given, as what `encoder` (a graph from ``image`` to ``latent``) makes
    of it, or else at `start`. `decoder` (a graph whose one input is the variable, to ``image``) makes the image of
    it; None: it is an image. `normalize`: gradients are divided by their mean absolute value (Mordvintsev et al.
    2015). `project`: after each step an image is clipped to its "range".
    `keep`: the "last" variable, or the "best" one, which takes one run of the graph more.
    """

    kind: Literal["ascent"] = "ascent"
    objectives: Annotated[dict[Name, Name], Field(min_length=1, max_length=31)]
    decoder: Name | None = None
    encoder: Name | None = None
    features: Name | None = None
    maximize: bool = False
    start: Literal["noise", "zeros"] = "noise"
    normalize: bool = False
    project: Literal["none", "range"] = "none"
    keep: Literal["last", "best"] = "best"
    defaults: AscentSettings = AscentSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.defaults.layer not in (None, *self.objectives):
            raise ValueError(f"the default layer {self.defaults.layer!r} is none of the objectives")
        if self.defaults.start == "encoder" and self.encoder is None:
            raise ValueError("a default start at the encoder needs an encoder")
        return self

    @property
    def graphs(self) -> tuple[str, ...]:
        """All graphs by name, each once, the default objective's first."""
        names = (*self.objectives.values(), self.decoder, self.encoder, self.features)
        return tuple(dict.fromkeys(name for name in names if name is not None))


SpecT = TypeVar("SpecT", bound=StrictModel)
ProgramSpec = Annotated[
    FeedforwardSpec | DiffusionSpec | AutoregressiveSpec | AscentSpec, Field(discriminator="kind")
]


class ModelSpec(StrictModel):
    """What a model is: its graphs, and the program that turns them into images or points.

    Either `image` or `points` is set; :attr:`output` is the one that is. `inversion`: how it finds the latent of
    an image again; see :meth:`Generator.invert`.
    """

    name: Name
    family: Name
    program: ProgramSpec
    graphs: Annotated[tuple[GraphSpec, ...], Field(min_length=1, max_length=32)]
    image: ImageSpec | None = None
    points: PointsSpec | None = None
    source: SourceSpec | None = None
    inversion: AscentSpec | None = None
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    class_names: tuple[str, ...] | None = None
    max_batch: Annotated[int, Field(ge=1, le=65536)] = 64

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [graph.name for graph in self.graphs]
        if len(set(names)) != len(names):
            raise ValueError("two graphs have one name")
        inversion = () if self.inversion is None else self.inversion.graphs
        for name in (*program_graphs(self.program), *inversion):
            if name not in names:
                raise ValueError(f"the program needs a graph {name!r}, which is missing")
        if (self.image is None) == (self.points is None):
            raise ValueError("a model makes either images or points: expected image or points, and not both")
        if self.points is not None and self.inversion is not None:
            raise ValueError("an inversion finds the latents of images, and this is a model of points")
        if self.points is not None and not isinstance(self.program, FeedforwardSpec):
            raise ValueError(f"a model of points is feedforward, not {self.program.kind}")
        self._check_source()
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} class_names for num_classes {self.num_classes}")
        for name in self.class_names or ():
            if not name.isprintable():  # they reach terminals
                raise ValueError(f"class name {name[:60]!r} has characters that can't be printed")
        return self

    def _check_source(self) -> None:
        source = self.source
        if source is None:
            return
        if not isinstance(self.program, FeedforwardSpec | AscentSpec):
            raise ValueError(f"a model with a source is feedforward or ascent, not {self.program.kind}")
        if self.image is None:
            raise ValueError("a model with a source makes images, not points")
        if isinstance(self.program, FeedforwardSpec) and self.program.graphs != (self.program.graph,):
            raise ValueError("a model with a source has no encoder and no classifier")
        expected = (source.scale * source.height, source.scale * source.width)
        if (self.image.height, self.image.width) != expected:
            raise ValueError(f"expected images of {expected} from the source at its scale, got {self.image.shape}")

    @property
    def output(self) -> ImageSpec | PointsSpec:
        """What the model makes: both kinds have a `shape`, of one sample, and a `value_range`."""
        found = self.points if self.image is None else self.image
        assert found is not None  # noqa: S101 - one of the two it is
        return found

    def program_of(self, kind: type[SpecT]) -> SpecT:
        """The program, which is of this `kind`; :class:`ManifestError` for another."""
        if not isinstance(self.program, kind):
            raise ManifestError(
                f"expected {kind.__name__}, but model {self.name!r} is of kind {self.program.kind}"
            )
        return self.program

    def require_image(self) -> ImageSpec:
        """The images that the model makes; :class:`InputError` for a model of points."""
        if self.image is None:
            raise InputError(
                f"this is for images, but model {self.name!r} makes points [n, {self.output.shape[0]}]; use "
                "a model of images, or sample() and its float32 array"
            )
        return self.image

    @cached_property
    def largest_tensor(self) -> int:
        """Elements that one sample takes of the largest tensor, the sample itself among them."""
        tensors = (tensor for graph in self.graphs for tensor in (*graph.inputs, *graph.outputs))
        source = 0 if self.source is None else math.prod(self.source.shape)
        return max(math.prod(self.output.shape), source, *(tensor.sample_elements for tensor in tensors))

    def graph(self, name: str) -> GraphSpec:
        """The graph called `name`; KeyError where there is none."""
        for graph in self.graphs:
            if graph.name == name:
                return graph
        raise KeyError(name)


def program_graphs(program: FeedforwardSpec | DiffusionSpec | AutoregressiveSpec | AscentSpec) -> tuple[str, ...]:
    """The names of the graphs that `program` runs."""
    return program.graphs


class FileEntry(StrictModel):
    """Checksum and size in bytes of one file of a bundle; no file is empty."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1, le=2**40)]


class EngineSpec(StrictModel):
    """An ahead-of-time engine of one graph in one precision, for the batch sizes of its profile.

    `gpu`: the model that it was built for, for classic TensorRT; empty: all that TensorRT-RTX builds for.
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            raise ValueError(f"engine {self.file!r}: min_batch <= opt_batch <= max_batch does not hold")
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

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
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
        for name in [*self.graph_files, *(engine.graph for engine in self.engines)]:
            if name not in graphs:
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
        if len({path.lower() for path in self.files}) != len(self.files):
            raise ValueError("two files have names that differ in case alone")
        for path in self.files:
            for folder in PurePosixPath(path).parents:
                if str(folder) in self.files:
                    raise ValueError(f"{str(folder)!r} is listed as a file, but {path!r} lies inside it")

    @property
    def used_files(self) -> tuple[str, ...]:
        """The files of graphs, proofs and engines; a bundle may hold others, such as its model card."""
        graphs = [path for files in self.all_graph_files.values() for path in files.values()]
        golden = [self.golden] if self.golden else []
        return (*graphs, *golden, *(engine.file for engine in self.engines))

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
        """Reads a manifest; :class:`ManifestError` says what is wrong, a newer schema first of all."""
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
