"""TensorFlow.js layers models as ONNX files: what convolutional image models are made of, NHWC at both ends.

Format: ``model.json`` with Keras' topology, and weights as float32, little-endian, one after the other in shards
(https://www.tensorflow.org/js/guide/save_load). Inside, the graph is NCHW: convolutions,
activations, sums, concatenations of channels, upsampling to the nearest pixel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


def tfjs_to_onnx(model_json: Path, target: Path, *, opset: int = 17) -> Path:
    """Writes the model of `model_json` to `target`: ``input`` [n, h, w, C] to ``output`` [n, H, W, C']."""
    data = json.loads(model_json.read_text())
    config = data["modelTopology"]["model_config"]["config"]
    weights = _weights(data, model_json.parent)
    builder = _Builder(weights)
    for layer in config["layers"]:
        builder.add(layer)
    first = config["layers"][0]["config"]["batch_input_shape"][-1]
    builder.nodes.insert(
        0, helper.make_node("Transpose", ["input"], [config["input_layers"][0][0]], perm=[0, 3, 1, 2])
    )
    builder.nodes.append(
        helper.make_node("Transpose", [config["output_layers"][0][0]], ["output"], perm=[0, 2, 3, 1])
    )
    graph = helper.make_graph(
        builder.nodes,
        config["name"],
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", "h", "w", first])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["n", "H", "W", builder.channels])],
        [numpy_helper.from_array(value, name) for name, value in builder.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(target))
    return target


class _Builder:
    """Nodes and weights, a layer at a time; a layer's output has its name."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.channels = 0

    def add(self, layer: dict[str, Any]) -> None:
        kind, config, name = layer["class_name"], layer["config"], layer["name"]
        if kind == "InputLayer":
            return
        inputs = [entry[0] for entry in layer["inbound_nodes"][0]]
        if kind == "Conv2D":
            self._convolution(name, inputs, config)
        elif kind == "Activation":
            self.nodes.append(helper.make_node(ACTIVATIONS[config["activation"]], inputs, [name]))
        elif kind == "Concatenate":
            assert config["axis"] in (3, -1)
            self.nodes.append(helper.make_node("Concat", inputs, [name], axis=1))
        elif kind == "Add":
            self.nodes.append(helper.make_node("Sum", inputs, [name]))
        elif kind == "UpSampling2D":
            self._upsampling(name, inputs[0], config)
        else:
            raise NotImplementedError(kind)

    def _convolution(self, name: str, inputs: list[str], config: dict[str, Any]) -> None:
        padding = {"same": "SAME_UPPER", "valid": "VALID"}[config["padding"]]
        assert config["strides"] == config["dilation_rate"] == [1, 1]
        assert config["data_format"] == "channels_last"
        kernel = self.weights[f"{name}/kernel"]  # [h, w, in, out]
        self.constants[f"{name}/kernel"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        if config["use_bias"]:
            self.constants[f"{name}/bias"] = self.weights[f"{name}/bias"]
        activation = config["activation"]
        out = name if activation == "linear" else f"{name}/linear"
        names = [inputs[0], f"{name}/kernel", *([f"{name}/bias"] if config["use_bias"] else [])]
        self.nodes.append(helper.make_node("Conv", names, [out], auto_pad=padding))
        if activation != "linear":
            self.nodes.append(helper.make_node(ACTIVATIONS[activation], [out], [name]))
        self.channels = kernel.shape[3]

    def _upsampling(self, name: str, source: str, config: dict[str, Any]) -> None:
        assert config["interpolation"] == "nearest"
        self.constants[f"{name}/scales"] = np.array([1, 1, *config["size"]], np.float32)
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        self.nodes.append(helper.make_node("Resize", [source, "", f"{name}/scales"], [name], **how))


def _weights(data: dict[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """All weights by name."""
    weights: dict[str, np.ndarray] = {}
    for group in data["weightsManifest"]:
        content = b"".join((folder / path).read_bytes() for path in group["paths"])
        start = 0
        for entry in group["weights"]:
            assert entry["dtype"] == "float32"
            assert "quantization" not in entry
            size = int(np.prod(entry["shape"], dtype=np.int64))
            array = np.frombuffer(content, "<f4", size, start).reshape(entry["shape"])
            weights[entry["name"]] = array
            start += 4 * size
        assert start == len(content)
    return weights
