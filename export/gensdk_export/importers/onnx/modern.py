"""A third-party graph in the operators that a bundle runs: functions written out, old operator sets converted, and
what was exported in training mode given the value that it has for one image.

A converter and an optimizer may get operators wrong: that of onnx forgets how ``Resize`` and ``Upsample`` placed
pixels before opset 11, and ONNX Runtime's fuses a ``BatchNormalization`` in training mode as if it were not. What
is known is set right here; the rest shows where the result is compared with the file as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper, version_converter

from gensdk_export.importers.import_report import Guess
from gensdk_export.onnx_check import nodes_of
from gensdk_runtime.errors import ExportError

OLDEST_OPSET = 13
"""Older files are converted to it: from here on shapes and axes are inputs, and quantization has channels."""
RESIZE_CHANGED = 11
"""The opset from which on ``Resize`` says where its pixels lie; before, they lie at ``x / scale``."""
TRAINING_ATTRIBUTE = 14
"""The opset from which on an attribute of ``BatchNormalization`` says that it trains; before, its outputs do."""
GROUP_NORM_BROKEN, GROUP_NORM_MENDED = 18, 21
"""``GroupNormalization`` had a scale for each group, was withdrawn, and came again with one for each channel."""
OLD_MODE = b"tf_half_pixel_for_nn"
"""A mode of ``Resize`` that opset 13 took away."""
EXPORT_AGAIN = "export the model with model.eval()"


@dataclass(frozen=True)
class Modern:
    """`model` as a bundle may hold it. `kept`: the same in its own operators, where `model` was converted.

    `alone`: images of one batch would change each other, so each goes in by itself.
    """

    model: onnx.ModelProto
    guesses: tuple[Guess, ...]
    kept: onnx.ModelProto | None
    alone: bool


def modernize(path: Path, model: onnx.ModelProto) -> Modern:
    """Changes `model` in place where it can. Raises :class:`ExportError` for layers that train, and draw or give
    what a bundle can't hold."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)
    norms = _settle_training(path, model)
    told: tuple[Guess, ...] = ()
    if norms:
        reason = f"{norms} BatchNormalization in training mode, as the file says; {EXPORT_AGAIN} for stored ones"
        told = (Guess("normalization", "each image by its own statistics", reason),)
    old = opset_of(model)
    target = _target(model, old)
    if target == old:
        return Modern(model, told, None, bool(norms))
    try:
        converted = version_converter.convert_version(model, target)
        if old < RESIZE_CHANGED:
            _place_pixels(converted)
        onnx.checker.check_model(converted)
    except Exception as failure:  # the converter raises whatever its C++ raises
        kept = kept_as_it_is(old, f"they can't be converted: {_line(failure)}")
        return Modern(model, (*told, kept), None, bool(norms))
    guess = Guess("operators", f"opset {target}", f"converted from opset {old}")
    return Modern(converted, (*told, guess), model, bool(norms))


def _target(model: onnx.ModelProto, old: int) -> int:
    """The operator set to convert to; `old` where it can stay."""
    if GROUP_NORM_BROKEN <= old < GROUP_NORM_MENDED:
        grouped = any(node.op_type == "GroupNormalization" for node in nodes_of(model.graph))
        return GROUP_NORM_MENDED if grouped else old
    modes = {each.s for node in nodes_of(model.graph) for each in node.attribute if node.op_type == "Resize"}
    return old if OLD_MODE in modes else max(old, OLDEST_OPSET)


def kept_as_it_is(opset: int, reason: str) -> Guess:
    """The row of the report for a file that is not converted."""
    return Guess("operators", f"opset {opset}, as they are", reason)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _settle_training(path: Path, model: onnx.ModelProto) -> int:
    """Turns normalizations in training mode into what they are for one image; how many there were.

    With a batch of one, the statistics of the batch are those of the image, so the layer is an
    ``InstanceNormalization``. A ``Dropout`` that trains draws random numbers, which no bundle does.
    """
    constants = _scalars(model)
    opset, count = opset_of(model), 0
    used = {name for node in nodes_of(model.graph) for name in node.input}
    for node in nodes_of(model.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Dropout" and _drops(node, opset, constants):
            raise ExportError(
                f"{path}: Dropout {_name(node)} is in training mode, so it is random; {EXPORT_AGAIN}"
            )
        if node.op_type == "BatchNormalization" and _trains(node, opset):
            _to_instance_norm(path, node, used)
            count += 1
    return count


def _trains(node: onnx.NodeProto, opset: int) -> bool:
    if opset < TRAINING_ATTRIBUTE:
        return any(node.output[1:])
    return any(each.name == "training_mode" and each.i for each in node.attribute)


def _drops(node: onnx.NodeProto, opset: int, constants: dict[str, float]) -> bool:
    """True if it drops anything; a computed `training_mode` is unknown, and counts as True."""
    if opset < 12 or len(node.input) < 3 or not node.input[2]:
        return any(each.name == "is_test" and not each.i for each in node.attribute)
    return bool(constants.get(node.input[2], 1.0)) and constants.get(node.input[1], 0.5) != 0.0


def _to_instance_norm(path: Path, node: onnx.NodeProto, used: set[str]) -> None:
    if used.intersection(node.output[1:]):
        raise ExportError(
            f"{path}: BatchNormalization {_name(node)} trains, and its statistics are used; {EXPORT_AGAIN}"
        )
    epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
    plain = helper.make_node(
        "InstanceNormalization", list(node.input[:3]), [node.output[0]], name=node.name, epsilon=epsilon
    )
    node.CopyFrom(plain)


def _place_pixels(model: onnx.ModelProto) -> None:
    """What ``Resize`` did before opset 11, and ``Upsample`` always: pixel i of the result lies at ``i / scale``.

    The nearest pixel was the one before; of a smaller result, ONNX Runtime takes the one behind.
    """
    scales = _scales(model)
    for node in nodes_of(model.graph):
        if node.op_type != "Resize":
            continue
        smaller = any(scale < 1 for scale in scales.get(node.input[2], ()))
        kept = [each for each in node.attribute if each.name == "mode"]
        del node.attribute[:]
        placed = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil" if smaller else "floor"}
        node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in placed.items())])


def _scales(model: onnx.ModelProto) -> dict[str, tuple[float, ...]]:
    found = {
        tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 1 and tensor.dims[0] <= 8
    }
    for node in nodes_of(model.graph):
        for each in node.attribute if node.op_type == "Constant" else ():
            if each.name == "value" and len(each.t.dims) == 1 and each.t.dims[0] <= 8:
                found[node.output[0]] = each.t
    arrays = {name: np.asarray(numpy_helper.to_array(tensor)) for name, tensor in found.items()}
    return {name: tuple(map(float, array)) for name, array in arrays.items() if array.dtype.kind == "f"}


def _scalars(model: onnx.ModelProto) -> dict[str, float]:
    """Constants of one element, by name."""
    found = {tensor.name: tensor for tensor in model.graph.initializer if np.prod(tensor.dims) == 1}
    for node in nodes_of(model.graph):
        for each in node.attribute if node.op_type == "Constant" else ():
            if each.name == "value" and np.prod(each.t.dims) == 1:
                found[node.output[0]] = each.t
    arrays = {name: np.asarray(numpy_helper.to_array(tensor)) for name, tensor in found.items()}
    return {name: float(array.reshape(())) for name, array in arrays.items() if array.dtype.kind in "fiub"}


def _name(node: onnx.NodeProto) -> str:
    return repr((node.name or (node.output[0] if node.output else ""))[:80])


def _line(failure: BaseException) -> str:
    return " ".join(str(failure).split())[:200]
