"""A real, small diffusion bundle, written with onnx.helper: what the runtime's tests can load without torch."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gensdk_runtime.spec.manifest import FileEntry, Manifest
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec, ScheduleSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

_ONNX_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def step_model(image: ImageSpec, *, name: str = "tiny", max_batch: int = 64) -> ModelSpec:
    """A diffusion model without classes."""
    shape = ("batch", *image.shape)
    graph = GraphSpec(
        name="step",
        inputs=(
            TensorSpec(name="sample", dtype="float32", shape=shape, role="state"),
            TensorSpec(name="previous_x0", dtype="float32", shape=shape, role="state"),
            TensorSpec(name="timestep", dtype="int64", shape=(1,), role="timestep"),
            TensorSpec(name="noise", dtype="float32", shape=shape, role="noise", distribution="normal"),
            TensorSpec(name="coefficients", dtype="float32", shape=(8,), role="coefficient"),
        ),
        outputs=(
            TensorSpec(name="next_sample", dtype="float32", shape=shape, role="state"),
            TensorSpec(name="next_previous_x0", dtype="float32", shape=shape, role="image"),
        ),
    )
    program = DiffusionSpec(graph="step", schedule=ScheduleSpec())
    return ModelSpec(name=name, family="test", program=program, graphs=(graph,), output=image, max_batch=max_batch)


def step_onnx(model: ModelSpec, *, width: int, layers: int, seed: int = 0) -> bytes:
    """The step graph with a denoiser of 3x3 convolutions, see DiffusionStep for the update."""
    rng = np.random.default_rng(seed)
    channels = [model.output.channels, *[width] * (layers - 1), model.output.channels]
    nodes, constants, here = [], [], "sample"
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        kernel = rng.standard_normal((after, before, 3, 3)) / np.sqrt(9 * before)
        constants.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [here, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        here = f"c{i}"
        if i < layers - 1:
            nodes.append(helper.make_node("Relu", [here], [f"r{i}"]))
            here = f"r{i}"
    constants += [numpy_helper.from_array(np.array([i]), f"i{i}") for i in range(8)]
    nodes += [helper.make_node("Gather", ["coefficients", f"i{i}"], [k]) for i, k in enumerate("xelabcds")]

    def combine(out: str, *terms: tuple[str, str]) -> None:
        for j, (coefficient, tensor) in enumerate(terms):
            nodes.append(helper.make_node("Mul", [coefficient, tensor], [f"{out}_t{j}"]))
        nodes.append(helper.make_node("Sum", [f"{out}_t{j}" for j in range(len(terms))], [out]))

    combine("raw", ("x", "sample"), ("e", here))
    nodes.append(helper.make_node("Neg", ["l"], ["low"]))
    nodes.append(helper.make_node("Max", ["raw", "low"], ["above"]))
    nodes.append(helper.make_node("Min", ["above", "l"], ["next_previous_x0"]))
    combine(
        "next_sample",
        ("a", "sample"), ("b", "next_previous_x0"), ("c", here), ("d", "previous_x0"), ("s", "noise"),
    )  # fmt: skip
    spec = model.graphs[0]

    def values(tensors: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(t.name, _ONNX_TYPES[t.dtype], list(t.shape)) for t in tensors]

    graph = helper.make_graph(nodes, spec.name, values(spec.inputs), values(spec.outputs), constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def write_step_bundle(folder: Path, *, size: int = 8, width: int = 8, layers: int = 3, name: str = "tiny") -> Path:
    """A bundle for `size` x `size` grey images; `width` and `layers` set what a step costs."""
    model = step_model(ImageSpec(channels=1, height=size, width=size), name=name)
    data = step_onnx(model, width=width, layers=layers)
    (folder / "graphs").mkdir(parents=True)
    (folder / "graphs" / "step.onnx").write_bytes(data)
    manifest = Manifest(
        model=model,
        graph_files={"step": {"fp32": "graphs/step.onnx"}},
        files={"graphs/step.onnx": FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))},
    )
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder
