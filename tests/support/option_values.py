"""Another value for each option of each program, and bundles of all programs that the fake backend runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.options import Option, options_of
from gensdk_runtime.spec.settings import SETTINGS
from gensdk_runtime.spec.signature import GraphSpec
from support.models import IMAGE, MODELS

MODEL_OF = {
    "feedforward": "feedforward",
    "diffusion": "sharing",
    "autoregressive": "autoregressive",
    "sequence": "sequence",
    "ascent": "ascent",
}
"""A model of each kind of program, of those in support.models."""


def another(option: Option) -> Any:
    """A value of an option that is not its default."""
    if option.choices:
        return next(choice for choice in option.choices if choice not in (option.value, "encoder"))
    if option.annotation is str:
        return "layer"
    if option.annotation is bool:
        return not option.value
    return {int: 2, float: 0.25}[option.annotation]


def beside(option: Option) -> dict[str, Any]:
    """What else an option wants of :meth:`Generator.sample`, of a model of :data:`MODEL_OF`."""
    return {"image": np.zeros((1, *IMAGE.shape), np.float32)} if option.name == "strength" else {}


def others(kind: str) -> dict[str, Any]:
    """Another value for every option of a program that wants nothing :func:`beside` it, such as go together."""
    options = {option.name: another(option) for option in options_of(SETTINGS[kind]) if not beside(option)}
    return options | ({"solver": "ddim"} if "eta" in options else {})  # the one solver that takes it


def fake_bundle(kind: str, target: Path) -> str:
    """A bundle of a program's model; see :func:`bundle_of_fakes`."""
    return bundle_of_fakes(MODELS[MODEL_OF[kind]](3), target)


def bundle_of_fakes(model: ModelSpec, target: Path) -> str:
    """A bundle whose graphs are empty: for the fake backend, which reads none."""
    files = {graph.name: f"graphs/{graph.name}.onnx" for graph in model.graphs}
    manifest = Manifest(model=model, graph_files={name: {"fp32": file} for name, file in files.items()})
    write_bundle(target, manifest, {files[graph.name]: _signature_alone(graph) for graph in model.graphs})
    return str(target)


def _signature_alone(graph: GraphSpec) -> bytes:
    """An ONNX file with the tensors of a graph and nothing between them."""
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    inputs, outputs = (
        [helper.make_tensor_value_info(each.name, types[each.dtype], list(each.shape)) for each in tensors]
        for tensors in (graph.inputs, graph.outputs)
    )
    return bytes(helper.make_model(helper.make_graph([], graph.name, inputs, outputs)).SerializeToString())
