"""A graph's torch module as a small, clean ONNX file: dynamic axes, standard operators, nothing else.

The files have opset 21: the first whose GroupNormalization is PyTorch's (group_norm.py says what becomes of it),
and before attention becomes one operator that TensorRT-RTX refuses in float32.
"""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer
from torch import nn

from gensdk_export.onnx_check import MAX_IR_VERSION, check_onnx, innermost, resize_axes
from gensdk_export.onnx_weights import onnx_beside, separate
from gensdk_export.rewrites.gradient import differentiated, refuse_plain_gradients
from gensdk_export.rewrites.group_norm import expand_group_norms
from gensdk_export.rewrites.near_neutral import keep_near_neutral
from gensdk_runtime.backends.base import Feeds
from gensdk_runtime.errors import ExportError
from gensdk_runtime.spec.signature import HEIGHT, RESULT_HEIGHT, RESULT_WIDTH, WIDTH, GraphSpec

OPSET = 21
MIN_EXAMPLE = 16
"""Pixels of the images that a graph of any size is traced with, at least."""
INFLATING_OPERATORS = frozenset(("Expand", "ConstantOfShape", "Tile", "Resize", "Pad", "Range", "OneHot"))
MAX_INFLATED = 4096
"""Elements; a larger constant made of a smaller one is computed at run time, not stored."""

IMAGE_AXES = frozenset((HEIGHT, WIDTH, RESULT_HEIGHT, RESULT_WIDTH))

_CHATTY_LOGGERS = ("torch.onnx", "torch.export", "torch._subclasses.fake_tensor", "onnxscript", "onnx_ir")


def export_onnx(
    graph: GraphSpec,
    module: nn.Module,
    feeds: Feeds,
    multiples: Mapping[str, int] | None = None,
    *,
    weights: Path | None = None,
) -> bytes:
    """The ONNX file of `module`, whose signature is `graph`; `feeds` are one call's inputs, used as examples.

    `multiples`: what the sizes of named axes are multiples of, where not any size will do. `weights`: the file for
    weights that are too many for the ONNX file (:mod:`gensdk_export.onnx_weights`), and the graph goes beside it;
    None: all stay in the graph. Raises :class:`ExportError` where PyTorch can't export it, or where the result is
    not what `graph` promises.
    """
    sizes = example_sizes(graph, multiples)
    example = resize_axes(graph, feeds, sizes)
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(example[spec.name])) for spec in graph.inputs)
    dims = {name: _dim(name, (multiples or {}).get(name, 1)) for name in sizes}
    shapes = tuple(
        {axis: dims[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in graph.inputs
    )
    with quiet(), _refusals(graph):
        module = differentiated(graph, module, arguments)
        refuse_plain_gradients(module, arguments)
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            dynamic_shapes=_by_parameter(module, shapes),
            optimize=False,
            verbose=False,
        )
        if program is None:
            raise ExportError("the exporter gave no program")
    with quiet():
        _optimize(program.model)
        program.model.graph.name = graph.name
        outside = separate(program.model, weights)
        model = onnx_ir.to_proto(program.model)
        del program
    _finish(model, graph)
    if weights is None or not outside:
        check_onnx(model, graph)
        return bytes(model.SerializeToString())
    onnx_beside(weights).write_bytes(data := bytes(model.SerializeToString()))
    check_onnx(model, graph, onnx_beside(weights))
    return data


def _by_parameter(module: nn.Module, shapes: tuple[dict[int, Any], ...]) -> tuple[Any, ...]:
    """`shapes` of arguments as PyTorch wants them: those that ``*parameter`` of ``forward`` takes are one
    entry."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    if not any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return shapes
    own = sum(parameter.kind is not inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    return shapes if len(shapes) <= own and own else (*shapes[:own], shapes[own:])


@contextmanager
def _refusals(graph: GraphSpec) -> Iterator[None]:
    """Turns whatever user code and the exporter raise into one line."""
    try:
        yield
    except Exception as failure:
        raise ExportError(f"graph {graph.name!r}: PyTorch can't export it: {innermost(failure)}") from failure


def _dim(name: str, multiple: int) -> Any:
    """A named axis of any size, or of any multiple of a number."""
    return torch.export.Dim(name, min=1) if multiple == 1 else multiple * torch.export.Dim(f"{name}_units", min=1)


def example_sizes(graph: GraphSpec, multiples: Mapping[str, int] | None = None) -> dict[str, int]:
    """A size for each named axis: 2, 3, ..., so that none is taken for fixed and none for another one.

    Axes with a multiple get that many units, and images a few more: a size too small leaves nothing to convolve.
    """
    names = dict.fromkeys(axis for spec in graph.inputs for axis in spec.shape if isinstance(axis, str))
    known = multiples or {}
    return {
        name: known.get(name, 1) * (size + (MIN_EXAMPLE // known[name] if name in known else 0))
        for size, name in enumerate(names, start=2)
    }


def _optimize(model: onnx_ir.Model) -> None:
    """Constants folded, duplicates and dead ends removed, the exporter's notes stripped, in place."""
    keep_near_neutral(model)
    optimizer.optimize_ir(model, input_size_limit=2**31, output_size_limit=2**31, should_fold=_should_fold)
    expand_group_norms(model)
    for clean in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.IdentityEliminationPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.DeduplicateInitializersPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
    ):
        clean(model)


def _should_fold(node: onnx_ir.Node) -> bool | None:
    """None: fold where all inputs are constant. False: the constant would be much larger than its parts."""
    if node.op_type not in INFLATING_OPERATORS:
        return None
    shape = node.outputs[0].shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        return False
    return None if math.prod(int(size) for size in shape if isinstance(size, int)) <= MAX_INFLATED else False


def _finish(model: onnx.ModelProto, graph: GraphSpec) -> None:
    """Names and the file format; intermediate shapes go, since every reader infers them."""
    model.producer_name, model.producer_version = "gensdk", ""
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    del model.graph.value_info[:]
    for value, spec in zip(model.graph.output, graph.outputs, strict=False):
        for dim, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=False):
            if isinstance(size, str) and dim.WhichOneof("value") is None:
                dim.dim_param = size
    for value, spec in (
        *zip(model.graph.input, graph.inputs, strict=False),
        *zip(model.graph.output, graph.outputs, strict=False),
    ):
        for dim, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=False):
            # An expression, as in 2*height or 64*height_units, gets the name that the graph has for it.
            if size in IMAGE_AXES and dim.HasField("dim_param") and not dim.dim_param.isidentifier():
                dim.dim_param = str(size)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences PyTorch's warnings on the way: none concerns the user, and what matters is checked afterwards."""
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
