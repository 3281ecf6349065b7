"""The gradient of an objective with respect to its input, as a graph of standard operators.

``make_fx`` runs a :class:`WithAutograd` and records what autograd does, operator by operator, with the batch (and
every other named axis) as a symbol. What ONNX has no operator for is written with those that it has: the backward
pass of a convolution, for its input alone, is a transposed convolution (Dumoulin & Visin 2016, section 4), and so
is that of pooling, over fixed kernels. The result is a module like any other, to export as always.

It does not: differentiate bilinear interpolation, attention written as one operator, or pooling with dilation;
those exports fail, naming the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gensdk_runtime.errors import ExportError
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.graphs.input_gradient import WithAutograd

aten = torch.ops.aten
Sizes = Sequence[int]

PLAIN = (
    "a gradient inside a graph must be an InputGradient (gensdk_training.graphs.input_gradient); "
    "autograd.grad can't be exported, and may leave constants behind without a word"
)


def differentiated(graph: GraphSpec, module: nn.Module, arguments: tuple[Tensor, ...]) -> nn.Module:
    """`module` as it is, or a :class:`WithAutograd` as a module that holds no autograd any more.

    `arguments`: an example of each input, with no two named axes of one size. Raises :class:`ExportError` where a
    named axis was fixed on the way.
    """
    if not isinstance(module, WithAutograd):
        return module
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    fakes = []
    for spec, argument in zip(graph.inputs, arguments, strict=True):
        dynamic = [DimDynamic.DUCK if isinstance(axis, str) else DimDynamic.STATIC for axis in spec.shape]
        context: Any = StatelessSymbolicContext(dynamic_sizes=dynamic, constraint_sizes=[None] * len(dynamic))
        fakes.append(mode.from_tensor(argument, symbolic_context=context))
    with (
        mode,
        enable_python_dispatcher(),
        _WholeUpsampling(),
    ):  # some operators ask for sizes as numbers without it
        traced = make_fx(
            lambda *given: module(*given),  # noqa: PLW0108 - a bound method's self would count as an argument
            decomposition_table={**core_aten_decompositions(), **DECOMPOSITIONS},
            tracing_mode="real",
            _allow_non_fake_inputs=True,
        )(*fakes)
    _drop_indices(traced)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced.eval()


def refuse_plain_gradients(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    """Runs `module` once; ``autograd.grad`` and ``backward`` inside it are an :class:`ExportError`."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ExportError(PLAIN)

    # For this one run, not for the exporter: its own tables would take note of the stand-in.
    kept = torch.autograd.grad, torch.autograd.backward
    torch.autograd.grad = torch.autograd.backward = refuse
    try:
        with torch.no_grad():
            module(*arguments)
    finally:
        torch.autograd.grad, torch.autograd.backward = kept


def _drop_indices(traced: torch.fx.GraphModule) -> None:
    """Drops the places of pooling's maxima, which engines can't give and nothing here uses."""
    for node in list(traced.graph.nodes):
        if node.target is not aten.max_pool2d_with_indices.default:
            continue
        read = [user for user in node.users if user.args[1] == 0]
        with traced.graph.inserting_before(node):
            alone = traced.graph.call_function(aten.max_pool2d.default, node.args, node.kwargs)
        for user in read:
            user.replace_all_uses_with(alone)


def _convolution_backward(  # noqa: PLR0917 - the operator's own
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: Sizes | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
    mask: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """The input's gradient alone: the weights are fixed, so theirs is not needed."""
    if not mask[0]:
        return None, None, None
    if transposed:
        plain = _both(stride, padding, dilation, gradient.dim() - 2)
        return torch.convolution(gradient, weight, None, *plain, False, [0] * len(plain[0]), groups), None, None
    sizes = list(inputs.shape[2:])
    return _transposed(gradient, weight, sizes, stride, padding, dilation, groups), None, None


def _batch_norm(  # noqa: PLR0917 - the operator's own
    inputs: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> Any:
    """With stored statistics: a product and a sum."""
    if training or mean is None or variance is None:
        return NotImplemented
    shape = (1, -1, *[1] * (inputs.dim() - 2))
    scale = torch.rsqrt(variance + epsilon)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    none = inputs.new_zeros(0)
    return inputs * scale.reshape(shape) + shift.reshape(shape), none, none


def _both(stride: Sizes, padding: Sizes, dilation: Sizes, count: int) -> tuple[list[int], list[int], list[int]]:
    stride, padding, dilation = (list(each) * (count // len(each)) for each in (stride, padding, dilation))
    return stride, padding, dilation


def _transposed(  # noqa: PLR0917 - the operator's own
    gradient: Tensor,
    weight: Tensor,
    sizes: Sequence[Any],
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    """The transposed convolution that gives an image of `sizes`: a strided one forgets how many rows were left
    over, so it is made a little larger and cut."""
    stride, padding, dilation = _both(stride, padding, dilation, gradient.dim() - 2)
    zeros = [0] * len(stride)
    kernel = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilation, strict=True)]
    if all(step == 1 for step in stride):
        return torch.convolution(gradient, weight, None, stride, padding, dilation, True, zeros, groups)
    if all(isinstance(size, int) for size in (*sizes, *gradient.shape[2:])):
        left = [
            size - ((have - 1) * step - 2 * pad + long)
            for size, have, step, pad, long in zip(sizes, gradient.shape[2:], stride, padding, kernel, strict=True)
        ]
        if all(0 <= rest < step for rest, step in zip(left, stride, strict=True)):
            return torch.convolution(gradient, weight, None, stride, padding, dilation, True, left, groups)
    whole = torch.convolution(gradient, weight, None, stride, zeros, dilation, True, zeros, groups)
    beyond = [amount for step in reversed(stride) for amount in (0, step - 1)]
    whole = functional.pad(whole, beyond)
    for axis, (size, pad) in enumerate(zip(sizes, padding, strict=True), start=2):
        whole = _slice(whole, axis, pad, size)
    return whole


def _slice(tensor: Tensor, axis: int, first: int, size: Any, step: int = 1) -> Tensor:
    """`size` places of `axis` from `first` on, each `step`-th; narrow() and indexing would fix a size that is a
    symbol."""
    part: Tensor = aten.slice.Tensor(tensor, axis, first, first + size, step)
    return part


def _max_pool2d_backward(  # noqa: PLR0917 - the operator's own
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """To the first of the largest values of each window, as PyTorch does.

    All in convolutions with fixed kernels, channel by channel: their sizes are those of pooling, symbols or not.
    """
    kernel, stride, padding = _both(kernel, stride or kernel, padding, 2)
    if ceil_mode or any(step != 1 for step in dilation):
        raise ExportError(
            "the gradient of max pooling with dilation or ceil_mode can't be exported; leave them out"
        )
    channels, count = int(inputs.shape[1]), kernel[0] * kernel[1]
    one = torch.eye(count, dtype=inputs.dtype)
    each = one.reshape(count, 1, *kernel).repeat(channels, 1, 1, 1)
    alike = torch.ones(count * channels, 1, 1, 1, dtype=inputs.dtype)
    before = torch.ones(count, count, dtype=inputs.dtype).tril(-1).reshape(count, count, 1, 1)

    def convolved(images: Tensor, weight: Tensor, step: Sizes) -> Tensor:
        return torch.convolution(images, weight, None, step, [0, 0], [1, 1], False, [0, 0], channels)

    padded = inputs
    if any(padding):
        edges = (padding[1], padding[1], padding[0], padding[0])
        padded = functional.pad(inputs, edges, value=float(torch.finfo(inputs.dtype).min))
    windows = convolved(padded, each, stride)
    largest = aten.max_pool2d_with_indices.default(inputs, kernel, stride, padding)[0]
    hits = (windows == convolved(largest, alike, [1, 1])).to(inputs.dtype)
    earlier = convolved(hits, before.repeat(channels, 1, 1, 1), [1, 1])
    first = torch.where(earlier == 0, hits, torch.zeros_like(hits))
    places = first * convolved(gradient, alike, [1, 1])
    return _transposed(places, each, list(inputs.shape[2:]), stride, padding, [1], channels)


def _avg_pool2d_backward(  # noqa: PLR0917 - the operator's own
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Each value of a window gets an equal share."""
    kernel, stride, padding = _both(kernel, stride or kernel, padding, 2)
    if ceil_mode or (any(padding) and not count_include_pad):
        raise ExportError(
            "the gradient of average pooling with ceil_mode, or without count_include_pad, can't be exported; "
            "leave them out"
        )
    channels, share = int(inputs.shape[1]), 1.0 / (divisor or kernel[0] * kernel[1])
    kernels = torch.full((channels, 1, *kernel), share, dtype=gradient.dtype)
    return _transposed(gradient, kernels, list(inputs.shape[2:]), stride, padding, [1], channels)


class _WholeUpsampling(TorchFunctionMode):
    """Writes nearest upsampling by whole factors as a transposed convolution with ones; what PyTorch makes of it,
    a gather, has a scatter with sums as its gradient, which engines refuse."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(zip(("input", "size", "scale_factor", "mode"), args, strict=False)) | (kwargs or {})
        scale = given.get("scale_factor")
        nearest = func is functional.interpolate and given.get("mode", "nearest") == "nearest"
        if not nearest or not isinstance(scale, int | float) or scale != int(scale) or given["input"].dim() != 4:
            return func(*args, **(kwargs or {}))
        inputs, factors = given["input"], [int(scale)] * 2
        channels = int(inputs.shape[1])
        ones = torch.ones(channels, 1, *factors, dtype=inputs.dtype)
        return functional.conv_transpose2d(inputs, ones, stride=factors, groups=channels)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution_backward,
    aten.native_batch_norm.default: _batch_norm,
    aten.max_pool2d_with_indices_backward.default: _max_pool2d_backward,
    aten.avg_pool2d_backward.default: _avg_pool2d_backward,
}
"""What ONNX has no operator for, or what does not keep the batch a symbol; the rest is PyTorch's own table."""
