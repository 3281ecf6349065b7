"""A real, small translation bundle, written with onnx.helper: images to their negatives, bytes to bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.spec.conditions import SourceSpec, label_conditions
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import HEIGHT, RESULT_HEIGHT, RESULT_WIDTH, WIDTH, GraphSpec, TensorSpec

GRAPH = "translator"


def inverting_model(*, scale: int = 1, channels: int = 3, classes: int | None = None) -> ModelSpec:
    """255 minus each byte, every pixel `scale` times as high and wide; a class adds its number."""
    height, width = (HEIGHT, WIDTH) if scale == 1 else (RESULT_HEIGHT, RESULT_WIDTH)
    source = TensorSpec(name="source", dtype="uint8", shape=("batch", HEIGHT, WIDTH, channels), role="image")
    label = TensorSpec(name="label", dtype="int64", shape=("batch",), role="condition")
    image = TensorSpec(
        name="image", dtype="float32", shape=("batch", channels, height, width), role="image", value_range=(-1, 1)
    )
    pixels = TensorSpec(name="pixels", dtype="uint8", shape=("batch", height, width, channels), role="image")
    total = TensorSpec(name="image_sum", dtype="float32", shape=("batch",), role="image")
    inputs = (source, label) if classes else (source,)
    return ModelSpec(
        name="negative",
        family="test",
        program=FeedforwardSpec(graph=GRAPH),
        graphs=(GraphSpec(name=GRAPH, inputs=inputs, outputs=(image, pixels, total)),),
        output=ImageSpec(channels=channels, height=16 * scale, width=24 * scale),
        conditions=(
            SourceSpec(channels=channels, height=16, width=24, scale=scale, margin=0),
            *label_conditions(classes),
        ),
    )


def inverting_onnx(model: ModelSpec) -> bytes:
    assert model.source is not None
    scale, spec = model.source.scale, model.graphs[0]
    constants = {
        "most": np.float32(255),
        "half": np.float32(127.5),
        "one": np.float32(1),
        "axes": np.array([1, 2, 3]),
        "scales": np.array([1, scale, scale, 1], np.float32),
        "column": np.array([-1, 1, 1, 1]),
    }
    nodes = [
        helper.make_node("Cast", ["source"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["most", "levels"], ["negative"]),
        helper.make_node("Resize", ["negative", "", "scales"], ["large"], mode="nearest"),
    ]
    shown = "large"
    if model.num_classes:
        nodes += [
            helper.make_node("Cast", ["label"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["number", "column"], ["shift"]),
            helper.make_node("Add", ["large", "shift"], ["shifted"]),
            helper.make_node("Min", ["shifted", "most"], ["clipped"]),
        ]
        shown = "clipped"
    nodes += [
        helper.make_node("Cast", [shown], ["pixels"], to=TensorProto.UINT8),
        helper.make_node("Div", [shown, "half"], ["unit"]),
        helper.make_node("Sub", ["unit", "one"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["image"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceSum", ["image", "axes"], ["image_sum"], keepdims=0),
    ]
    types = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    ends = [
        [helper.make_tensor_value_info(t.name, types[t.dtype], list(t.shape)) for t in tensors]
        for tensors in (spec.inputs, spec.outputs)
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, GRAPH, *ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def write_inverting_bundle(path: Path, **how: int) -> Path:
    model = inverting_model(**how)
    manifest = Manifest(model=model, graph_files={GRAPH: {"fp32": f"graphs/{GRAPH}.onnx"}})
    write_bundle(path, manifest, {f"graphs/{GRAPH}.onnx": inverting_onnx(model)}).close()
    return path
