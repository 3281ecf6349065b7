"""ONNX operators as torch modules: those of convolutional classifiers, each for the tensors of one node.

An entry of :data:`OPERATORS` makes the module of a :class:`Node`; it takes those inputs of the node that are no
constants, in order. To add an operator, add an entry; its module is differentiated later
(:mod:`gensdk_export.rewrites.gradient`), so it is written with functions whose gradient can be exported.

It does not: convolve along one or three axes, take weights that are computed from the image, dilate pooling, pad
with anything but a constant, or resize.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional

from gensdk_export.importers.classifier.axis_operators import (
    concat,
    cut,
    flatten,
    gather,
    pad,
    reshape,
    split,
    squeeze,
    transpose,
    unsqueeze,
)
from gensdk_export.importers.classifier.node import Apply, Builder, Node
from gensdk_export.importers.classifier.sizes import shape_of
from gensdk_export.importers.classifier.window_operators import average_pool, convolution, max_pool


def _plain(function: Callable[..., Any]) -> Builder:
    """Operators without attributes."""
    return lambda node: Apply(function, node)


def _identity(node: Node) -> nn.Module:
    return Apply(_first, node, taken=1)


def _first(given: Any) -> Any:
    return given


def _dropout(node: Node) -> nn.Module:
    """Dropout, which does nothing in inference."""
    training = node.constants.get(2)
    if training is not None and bool(np.any(training)):
        raise node.refused("it is in training mode; export the model for inference")
    return _identity(node)


def _batch_norm(node: Node) -> nn.Module:
    if node.get("training_mode", 0):
        raise node.refused("it is in training mode; export the model for inference")
    scale, bias, mean, variance = (node.weight(index) for index in range(1, 5))
    kind = nn.BatchNorm2d if len(node.shape) == 4 else nn.BatchNorm1d
    norm = kind(len(scale), eps=float(node.get("epsilon", 1e-5)), device="meta")
    norm.weight, norm.bias = (nn.Parameter(each, requires_grad=False) for each in (scale, bias))
    norm.running_mean, norm.running_var = mean, variance
    norm.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    return norm


def _gemm(node: Node) -> nn.Module:
    """``alpha A B + beta C`` with constant B and C."""
    if node.get("transA", 0):
        raise node.refused("transA would mix the images of a batch")
    weight = node.weight(1) if node.get("transB", 0) else node.weight(1).T
    return _linear(weight * float(node.get("alpha", 1.0)), _beta(node))


def _beta(node: Node) -> Tensor | None:
    return None if node.constant(2) is None else node.weight(2).reshape(-1) * float(node.get("beta", 1.0))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.expand(weight.shape[0]).contiguous(), requires_grad=False)
    return linear


def _matmul(node: Node) -> nn.Module:
    right = node.constants.get(1)
    if 0 not in node.constants and right is not None and right.ndim == 2:
        return _linear(node.weight(1).T, None)
    return Apply(torch.matmul, node)


def _clip(node: Node) -> nn.Module:
    low, high = node.number("min", 1), node.number("max", 2)
    if low is None and high is None:
        return _identity(node)
    return Apply(partial(torch.clamp, min=low, max=high), node, taken=1)


def _leaky_relu(node: Node) -> nn.Module:
    slope = float(node.get("alpha", 0.01))
    return Apply(partial(functional.leaky_relu, negative_slope=slope), node)


def _elu(node: Node) -> nn.Module:
    return Apply(partial(functional.elu, alpha=float(node.get("alpha", 1.0))), node)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _hard_sigmoid(node: Node) -> nn.Module:
    alpha, beta = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
    return Apply(lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0), node)


def _hard_swish(x: Tensor) -> Tensor:
    return x * torch.clamp(x / 6 + 0.5, 0.0, 1.0)


def _gelu(node: Node) -> nn.Module:
    return Apply(partial(functional.gelu, approximate=node.get("approximate", "none")), node)


def _softmax(function: Callable[..., Tensor]) -> Builder:
    def build(node: Node) -> nn.Module:
        axis = int(node.get("axis", -1 if node.opset >= 13 else 1))
        if node.opset >= 13 or axis in (-1, len(node.shape) - 1):
            return Apply(partial(function, dim=axis), node)
        return Apply(lambda x: function(x.flatten(axis), dim=-1).reshape(x.shape), node)

    return build


def _lrn(node: Node) -> nn.Module:
    """``x / (bias + alpha / size sum x^2)^beta``, the sum over neighbouring channels: times a band matrix."""
    size, channels = int(node.get("size", 1)), node.shape[1]
    alpha, beta, bias = float(node.get("alpha", 1e-4)), float(node.get("beta", 0.75)), float(node.get("bias", 1.0))
    places = torch.arange(channels)
    offset = places[None, :] - places[:, None]
    band = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    sums = nn.Conv2d(channels, channels, 1, bias=False, device="meta")
    sums.weight = nn.Parameter((band.float() * (alpha / size))[:, :, None, None], requires_grad=False)
    return _Normalized(sums, bias, beta)


class _Normalized(nn.Module):
    def __init__(self, sums: nn.Module, bias: float, beta: float) -> None:
        super().__init__()
        self.sums, self.bias, self.beta = sums, bias, beta

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x / (self.sums(x * x) + self.bias) ** self.beta
        return scaled


def _global(function: Callable[..., Tensor]) -> Builder:
    return lambda node: Apply(partial(function, dim=(2, 3), keepdim=True), node)


def _reduce(function: Callable[..., Tensor]) -> Builder:
    def build(node: Node) -> nn.Module:
        axes, keep = node.sizes("axes", 1), bool(node.get("keepdims", 1))
        if axes is None:
            raise node.refused("expected axes; over all of them it would mix the images of a batch")
        return Apply(partial(function, dim=tuple(axes), keepdim=keep), node, taken=1)

    return build


def _cast(node: Node) -> nn.Module:
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(int(node.get("to", 1)))).kind
    if 0 not in node.constants:
        if kind != "f":
            raise node.refused("features become whole numbers, which have no gradient")
        return _identity(node)
    wanted = {"f": torch.float32, "b": torch.bool}.get(kind, torch.int64)
    return Apply(lambda x: x.to(wanted), node)


def _div(a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


def _sum(*parts: Tensor) -> Tensor:
    return reduce(torch.add, parts)


OPERATORS: dict[str, Builder] = {
    "Conv": convolution,
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "LRN": _lrn,
    "Relu": _plain(torch.relu),
    "LeakyRelu": _leaky_relu,
    "PRelu": _plain(_prelu),
    "Elu": _elu,
    "Clip": _clip,
    "Sigmoid": _plain(torch.sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(_hard_swish),
    "Tanh": _plain(torch.tanh),
    "Softplus": _plain(functional.softplus),
    "Erf": _plain(torch.erf),
    "Gelu": _gelu,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Div": _plain(_div),
    "Sum": _plain(_sum),
    "Pow": _plain(torch.pow),
    "Sqrt": _plain(torch.sqrt),
    "Exp": _plain(torch.exp),
    "Neg": _plain(torch.neg),
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": cut,
    "Gather": gather,
    "Pad": pad,
    "Cast": _cast,
    "Shape": shape_of,
    "Dropout": _dropout,
    "Identity": _identity,
}
