"""Makes a workload once: its weights, its bundle and a peer's graphs, under a key of all they are made from.

python -m workloads.prepare cifar10-unet runs/bench        # with benchmarks/ on the path
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import gensdk_export
import gensdk_training
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import FOLDER
from gensdk_runtime.host.atomic import put_in_place, sibling
from gensdk_runtime.spec.model import AutoregressiveSpec, DiffusionSpec, ModelSpec
from gensdk_runtime.spec.provenance import Provenance
from workloads import WORKLOADS, Model, Workload

_PACKAGES = ("torch", "onnx", "onnxscript", "diffusers")
_SOURCES = (
    Path(__file__).parent,
    Path(gensdk_export.__path__[0]),
    Path(gensdk_training.__path__[0]) / "families",
    Path(gensdk_training.__path__[0]) / "networks",
    Path(gensdk_training.__path__[0]) / "graphs",
)


@dataclass(frozen=True)
class Prepared:
    """A workload on disk, in `folder`. All of it comes from the same weights."""

    name: str
    source: str
    folder: str

    @property
    def bundle(self) -> Path:
        """The gensdk bundle."""
        return Path(self.folder) / "model.gsdk"

    @property
    def weights(self) -> Path:
        """All weights, as safetensors."""
        return Path(self.folder) / "weights.safetensors"

    def graph(self, name: str) -> Path:
        """The ONNX file of one graph, for peers that run graphs.

        Of a diffusion model it is a plain ``step``, with time step and solver in it but no label or guidance: what
        is simplest and fastest to loop over. Of other models the graphs are the bundle's.
        """
        return Path(self.folder) / "graphs" / f"{name}.onnx"

    def describe(self) -> ModelSpec:
        """The model's description."""
        with Bundle.open(self.bundle) as bundle:
            return bundle.manifest.model

    def load(self) -> Model:
        """The torch modules with the stored weights."""
        from safetensors.torch import load_model

        built = build(self.source)
        load_model(built.network, self.weights)
        return built


def build(source: str) -> Model:
    """What the function ``module:function`` builds, from a fixed seed."""
    import torch

    module, _, function = source.partition(":")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Model = getattr(importlib.import_module(module), function)()
    return model


def locate(workload: Workload, root: Path) -> Prepared:
    """Where the workload lies, made or not. The key covers the sources and packages that shape its graphs."""
    versions = {name: _version(name) for name in _PACKAGES}
    key = hashlib.sha256(json.dumps([workload.source, versions]).encode())
    sources = sorted(path for folder in _SOURCES for path in folder.glob("*.py"))
    embedded = sorted(FOLDER.glob("*.gsdk"))
    for path in [*sources, *embedded, Path(__file__).parent.parent / "recipes.py"]:
        key.update(path.name.encode() + path.read_bytes())
    return Prepared(workload.name, workload.source, str(root / f"{workload.name}-{key.hexdigest()[:12]}"))


def _version(package: str) -> str | None:
    """The installed version; None where it is missing, which not every workload minds."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def prepare(workload: Workload, root: Path) -> Prepared:
    """The workload on disk: trained nowhere, exported (with proof) where it is not there yet."""
    found = locate(workload, root)
    if Path(found.folder).exists():
        return found
    root.mkdir(parents=True, exist_ok=True)
    with sibling(Path(found.folder), folder=True) as new:
        _make(Prepared(found.name, found.source, str(new)), steps=4 if workload.cases[0].steps else None)
        put_in_place(new, Path(found.folder))
    for old in root.glob(f"{workload.name}-*"):
        if old.is_dir() and old != Path(found.folder):
            shutil.rmtree(old)
    return found


def _make(target: Prepared, *, steps: int | None) -> None:
    from safetensors.torch import save_model

    from gensdk_export.export import ExportOptions, export_plan

    model = build(target.source)
    save_model(model.network, str(target.weights))
    one_call = isinstance(model.plan.model.program, AutoregressiveSpec)  # "auto" takes it where it is faster
    options = ExportOptions(golden_steps=steps, one_call=one_call)
    export_plan(model.plan, Provenance(data=target.source), target.bundle, options)
    target.graph("step").parent.mkdir()
    if isinstance(model.plan.model.program, DiffusionSpec):
        target.graph("step").write_bytes(_plain_step(model))
        return
    with Bundle.open(target.bundle) as bundle:
        for name in model.plan.model.program.graphs:
            target.graph(name).write_bytes(bundle.graph_source(name, "fp32").read())


def _plain_step(model: Model) -> bytes:
    """The denoiser with its solver's update as one graph, as the usual export of PyTorch makes it."""
    import numpy as np

    from gensdk_export.onnx_export import example_sizes, export_onnx
    from gensdk_runtime.backends.bound import empty_tensor
    from gensdk_training.graphs.diffusion_step import DiffusionStep, step_graph

    graph = step_graph(model.plan.model.output)
    feeds = {spec.name: empty_tensor(graph, spec, example_sizes(graph)) for spec in graph.inputs}
    feeds["sample"] += np.float32(0.5)
    return export_onnx(graph, DiffusionStep(model.network, conditional=False).eval(), feeds)


if __name__ == "__main__":
    print(json.dumps(asdict(prepare(WORKLOADS[sys.argv[1]], Path(sys.argv[2])))))
