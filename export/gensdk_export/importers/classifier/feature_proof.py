"""Proves a classifier that PyTorch runs equal to the file in ONNX Runtime, and its gradient graphs to autograd.

Features are continuous, gradients are not: where a feature is nearly zero, rounding puts it on either side of a
ReLU's edge, and where two are nearly equal, either may be the largest; then a part of the gradient jumps, whoever
computes it. Small images have few features, so most of them are far from every edge: on those the graphs must be
equal. On larger ones they may differ by what float32 differs from float64, measured along a dream.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch

from gensdk_export.gradient_rounding import scaled
from gensdk_export.importers.classifier.preprocessing import Features, Preprocessing
from gensdk_export.importers.onnx.original import PlainSession, open_session
from gensdk_export.importers.onnx.reading import OnnxFile
from gensdk_export.proof import GraphSet
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import ExportError
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import fixed_shape
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import TorchSession

SMALL_IMAGES = 9
IMAGES = 2
"""Made up, proved together in PyTorch and one by one in ONNX Runtime: so no batch may mix them."""


@dataclass(frozen=True)
class Sizes:
    """(height, width) that a file was made for, and a `larger` one, at which it gives the layers `free` as it
    stands."""

    own: tuple[int, int]
    larger: tuple[int, int]
    free: list[str]


def prove_features(
    file: OnnxFile, preprocessing: Preprocessing, networks: Mapping[str, Features], sizes: Sizes, *, atol: float
) -> None:
    """Compares the features of `networks` with those of the file as it came, at its own size, and where their
    part of the file takes it, at a larger one. Raises :class:`ExportError` for a scaled difference over `atol`."""
    for size, names in ((sizes.own, list(networks)), (sizes.larger, sizes.free)):
        images = _images(len(preprocessing.mean), size, IMAGES)
        tensors = {name: networks[name].network.output for name in names}
        expected = _by_onnxruntime(
            file, preprocessing.picture.port.name, tensors.values(), preprocessing.seen(images)
        )
        for name, tensor in tensors.items():
            with torch.inference_mode():
                found = networks[name].in_file(torch.from_numpy(images)).numpy()
            what = f"{file.path}: layer {name!r} at {size[0]} x {size[1]}"
            if found.shape != expected[tensor].shape:
                raise ExportError(
                    f"{what}: PyTorch gives {list(found.shape)}, ONNX Runtime {list(expected[tensor].shape)}; "
                    "choose layers below it with --layer"
                )
            difference = scaled(found, expected[tensor])
            if not difference <= atol:  # NaN fails too
                raise ExportError(
                    f"{what}: PyTorch differs from ONNX Runtime by {difference:.2e}, allowed {atol:.2e}"
                )


def prove_gradients(plan: ExportPlan, files: GraphSet, *, atol: float) -> None:
    """Compares the gradient graphs `files` with autograd on images of the smallest size, one by one: most must
    keep the scaled difference `atol`, else :class:`ExportError`."""
    source = plan.model.source
    if source is None:
        raise ExportError(f"expected a plan that dreams on images, got {plan.model.name!r}")
    images = _images(source.channels, (source.smallest, source.smallest), SMALL_IMAGES)
    for graph in plan.model.graphs:
        channels = np.ones(fixed_shape(graph, "channels"), np.float32)
        live = TorchSession(graph, plan.modules[graph.name])
        exported = PlainSession(graph, files.files[graph.name], optimized=True)
        differences = []
        for image in images:
            feeds = {"variable": image[None], "channels": channels}
            found, expected = exported.run(feeds), live.run(feeds)
            differences.append(max(scaled(found[name], expected[name]) for name in expected))
        middle = float(np.median(differences))
        if not middle <= atol:  # NaN fails too
            raise ExportError(
                f"graph {graph.name!r} differs from autograd by {middle:.2e} on most small images, allowed "
                f"{atol:.2e}; nothing was written"
            )


def _images(channels: int, size: tuple[int, int], count: int) -> Float32:
    """float32 [`count`, C, H, W] in [-1, 1]: gradients of colour, and noise."""
    generator = np.random.default_rng(0)
    rows, columns = (np.linspace(-1, 1, length) for length in size)
    slopes = generator.uniform(-0.4, 0.4, (2, count, channels, 1, 1))
    smooth = slopes[0] * rows[:, None] + slopes[1] * columns[None, :]
    images: Float32 = (smooth + generator.uniform(-0.2, 0.2, (count, channels, *size))).astype(np.float32)
    return images


def _by_onnxruntime(file: OnnxFile, images: str, tensors: Iterable[str], seen: Float32) -> dict[str, Array]:
    """The tensors, of one image after the other."""
    wanted = list(dict.fromkeys(tensors))
    if not wanted:
        return {}
    try:
        session = open_session(_cut_out(file, images, wanted))
        runs = [session.run(wanted, {images: image[None]}) for image in seen]
    except Exception as failure:  # ONNX Runtime's exceptions share no base but Exception
        reason = " ".join(str(failure).split())[:200]
        raise ExportError(f"{file.path}: ONNX Runtime can't run it: {reason}") from None
    return {name: np.concatenate(each) for name, each in zip(wanted, zip(*runs, strict=True), strict=True)}


def _cut_out(file: OnnxFile, images: str, wanted: list[str]) -> bytes:
    """The part of the file that leads to `wanted`, as it came, for images of any size."""
    model = onnx.load_model_from_string(file.data)
    made = {name for node in model.graph.node for name in node.output}
    if not made.issuperset(wanted):  # tensors within functions
        model = onnx.ModelProto()
        model.CopyFrom(file.model)
    needed, kept = set(wanted), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    inputs = [value for value in model.graph.input if value.name == images]
    _free(inputs[0])
    for field, values in (("node", kept[::-1]), ("initializer", weights), ("input", inputs)):
        copies = [copy.deepcopy(value) for value in values]
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(copies)
    for field in ("value_info", "output"):
        model.graph.ClearField(field)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    return bytes(model.SerializeToString())


def _free(value: Any) -> None:
    for axis in value.type.tensor_type.shape.dim:
        axis.Clear()
