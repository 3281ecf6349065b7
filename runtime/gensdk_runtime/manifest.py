"""What a bundle says about itself: typed, frozen, versioned, strict about unknown keys.

:class:`ModelSpec` is what a model *is* (graphs, program, output); :class:`Manifest` is what a bundle *packs*
(the model, the files of each precision, proofs, provenance, checksums).
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gensdk_runtime.errors import ManifestError
from gensdk_runtime.strict import StrictModel

SCHEMA_VERSION = 1
"""Raised when a reader of the older schema could misread the newer one."""

Dtype = Literal["float32", "float16", "int64", "int32", "uint8", "bool"]
Precision = Literal["fp32", "fp16"]
Role = Literal["noise", "condition", "image", "state", "timestep", "coefficient"]
SolverName = Literal["ddpm", "ddim", "dpmsolver++"]
TimestepSpacing = Literal["leading", "linspace", "trailing"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,99}")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value[:60]!r} is no name (a letter, then up to 99 letters, digits, '_', '-', '.')")
    return value


def check_path(value: str) -> str:
    """Refuses all but a plain relative path inside the bundle (forward slashes, no ``..``, no drive)."""
    path = PurePosixPath(value)
    plain = value and len(value) <= 240 and str(path) == value and not path.is_absolute()
    if not plain or any(part in ("..", ".") or not part.isprintable() for part in path.parts):
        raise ValueError(f"path {value[:80]!r} is not a plain relative path inside the bundle")
    if any(character in value for character in '\\:*?"<>|'):
        raise ValueError(f"path {value[:80]!r} has a character that not every file system keeps")
    return value


Name = Annotated[str, AfterValidator(_check_name)]
BundlePath = Annotated[str, AfterValidator(check_path)]
Axis = Annotated[int, Field(ge=1, le=2**31 - 1)] | Name
Finite = Annotated[float, Field(allow_inf_nan=False)]


class TensorSpec(StrictModel):
    """One input or output of a graph.

    `shape` holds sizes, or names for dynamic axes; two axes of one name have one size. `value_range` is
    (lowest, highest) where it is known. `distribution` says how a `noise` input is drawn: standard normal,
    or uniform on [0, 1).
    """

    name: Name
    dtype: Dtype
    shape: Annotated[tuple[Axis, ...], Field(max_length=8)]
    role: Role
    value_range: tuple[Finite, Finite] | None = None
    distribution: Literal["normal", "uniform"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range {self.value_range} of {self.name!r} is empty")
        if self.distribution is not None and self.role != "noise":
            raise ValueError(f"{self.name!r} has a distribution, but its role is {self.role!r}, not 'noise'")
        return self


class GraphSpec(StrictModel):
    """The signature of one graph. A state input ``x`` comes back as output ``next_x``."""

    name: Name
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=64)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for tensors in (self.inputs, self.outputs):
            names = [tensor.name for tensor in tensors]
            if len(set(names)) != len(names):
                raise ValueError(f"graph {self.name!r} has two tensors of one name")
        return self

    def input(self, name: str) -> TensorSpec | None:
        """The input called `name`, if there is one."""
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """The output called `name`, if there is one."""
        return next((tensor for tensor in self.outputs if tensor.name == name), None)


class ImageSpec(StrictModel):
    """The images a model makes: float32 NCHW within `value_range`."""

    channels: Annotated[int, Field(ge=1, le=64)]
    height: Annotated[int, Field(ge=1, le=16384)]
    width: Annotated[int, Field(ge=1, le=16384)]
    value_range: tuple[Finite, Finite] = (-1.0, 1.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)


class FeedforwardSpec(StrictModel):
    """One run of `graph`: noise, and a label where the model has classes, become images.

    The graph's first noise input is the latent; its output ``image`` is the result.
    """

    kind: Literal["feedforward"] = "feedforward"
    graph: Name


class ScheduleSpec(StrictModel):
    """A noise schedule over `num_train_timesteps`; see :mod:`gensdk_runtime.schedules`."""

    kind: Literal["linear", "cosine"] = "linear"
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02


class DiffusionDefaults(StrictModel):
    """What :meth:`Generator.sample` uses where the caller says nothing."""

    solver: SolverName = "ddim"
    num_inference_steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 1.0
    timestep_spacing: TimestepSpacing = "trailing"
    clip_sample: bool = True


class DiffusionSpec(StrictModel):
    """A solver over `graph`, the step graph, which holds the denoiser *and* the solver's update.

    Inputs of the step graph (B samples; G = 2 where guidance runs both halves, otherwise 1):
    ``sample`` [B, C, H, W] and ``previous_x0`` [B, C, H, W] (state), ``timestep`` int64 [1], ``noise``
    [B, C, H, W], ``coefficients`` [8] (a row of :class:`gensdk_runtime.solvers.SolverTable`); and for a model
    with classes ``label`` int64 [G, B], where the class `num_classes` means "none", with
    ``guidance_weights`` [G]. Outputs: ``next_sample`` and ``next_previous_x0`` [B, C, H, W].
    """

    kind: Literal["diffusion"] = "diffusion"
    graph: Name
    schedule: ScheduleSpec
    defaults: DiffusionDefaults = DiffusionDefaults()


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


ProgramSpec = Annotated[FeedforwardSpec | DiffusionSpec | AutoregressiveSpec, Field(discriminator="kind")]


class ModelSpec(StrictModel):
    """What a model is: its graphs, and the program that turns them into images."""

    name: Name
    family: Name
    program: ProgramSpec
    graphs: Annotated[tuple[GraphSpec, ...], Field(min_length=1, max_length=32)]
    image: ImageSpec
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    class_names: tuple[str, ...] | None = None
    max_batch: Annotated[int, Field(ge=1, le=65536)] = 64

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [graph.name for graph in self.graphs]
        if len(set(names)) != len(names):
            raise ValueError("two graphs have one name")
        for name in program_graphs(self.program):
            if name not in names:
                raise ValueError(f"the program needs a graph {name!r}, which is missing")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} class_names for num_classes {self.num_classes}")
        return self

    def graph(self, name: str) -> GraphSpec:
        """The graph called `name`; KeyError where there is none."""
        for graph in self.graphs:
            if graph.name == name:
                return graph
        raise KeyError(name)


def program_graphs(program: FeedforwardSpec | DiffusionSpec | AutoregressiveSpec) -> tuple[str, ...]:
    """The names of the graphs that `program` runs."""
    return program.graphs if isinstance(program, AutoregressiveSpec) else (program.graph,)


class FileEntry(StrictModel):
    """Checksum and size in bytes of one file of a bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=2**40)]


class EngineSpec(StrictModel):
    """An ahead-of-time engine of one graph in one precision, for the batch sizes of its profile."""

    graph: Name
    precision: Precision
    file: BundlePath
    runtime: Literal["tensorrt-rtx", "tensorrt"]
    version: str
    min_batch: Annotated[int, Field(ge=1)]
    opt_batch: Annotated[int, Field(ge=1)]
    max_batch: Annotated[int, Field(ge=1)]


class Precision16Report(StrictModel):
    """How the fp16 graphs were made: the fp32 islands that measurement asked for, and what was measured."""

    islands: dict[str, tuple[str, ...]] = {}
    max_abs_activation: Finite = 0.0
    max_abs_difference: dict[str, Finite] = {}


class Provenance(StrictModel):
    """Where the weights came from."""

    config: dict[str, Any] = {}
    data: str = ""
    data_count: int = 0
    steps: int = 0
    seed: int = 0
    ema: bool = False
    metrics: dict[str, Finite] = {}
    created: str = ""
    versions: dict[str, str] = {}


class Manifest(StrictModel):
    """``manifest.json``: the model, its files in each precision, its proofs, and a checksum of every file."""

    schema_version: int = SCHEMA_VERSION
    gensdk_version: str = ""
    model: ModelSpec
    graph_files: dict[Name, dict[Precision, BundlePath]]
    golden: BundlePath | None = None
    engines: tuple[EngineSpec, ...] = ()
    fp16: Precision16Report | None = None
    provenance: Provenance = Provenance()
    files: dict[BundlePath, FileEntry] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for graph in self.model.graphs:
            if "fp32" not in self.graph_files.get(graph.name, {}):
                raise ValueError(f"graph {graph.name!r} has no fp32 file in graph_files")
        listed = [path for files in self.graph_files.values() for path in files.values()]
        listed += [engine.file for engine in self.engines]
        listed += [self.golden] if self.golden else []
        for path in listed:
            if path not in self.files:
                raise ValueError(f"{path!r} is used but not listed in files")
        return self

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that every graph of the program has."""
        known: tuple[Precision, ...] = ("fp32", "fp16")
        return tuple(p for p in known if all(p in files for files in self.graph_files.values()))

    @classmethod
    def parse(cls, text: bytes, *, what: str) -> Manifest:
        """Reads a manifest; :class:`ManifestError` says what is wrong, a newer schema first of all."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raise ManifestError(f"{what}: not readable as JSON; export the bundle again") from None
        version = raw.get("schema_version", SCHEMA_VERSION) if isinstance(raw, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ManifestError(
                f"{what}: schema version {version}, this gensdk reads up to {SCHEMA_VERSION}; upgrade gensdk"
            )
        return cls.from_json(text, what=what, error=ManifestError)
