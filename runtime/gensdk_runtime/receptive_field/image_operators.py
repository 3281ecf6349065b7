"""What the operators of images do to places: windows, pooling, resizing, and what mixes all of them."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, prod

from gensdk_runtime.receptive_field.rules import Call, Window, joined, rule, windowed
from gensdk_runtime.receptive_field.tensors import Factor, Tensor, UnknownError, of_shape, spread

PLACE_BY_PLACE = frozenset(
    """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BitShift Ceil
    Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN
    LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu
    Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
    """.split()  # noqa: SIM905 - a list of words reads as one
)
FIRST_ALONE = ("Bernoulli", "Cast", "CastLike", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear")
OVER_ALL = {
    "GlobalAveragePool": "global pooling",
    "GlobalMaxPool": "global pooling",
    "GlobalLpPool": "global pooling",
    "InstanceNormalization": "instance normalization",
    "GroupNormalization": "group normalization",
}
TAPS = {"nearest": 1, "linear": 2, "cubic": 3}
"""Places that resizing reads on each side, at most."""
ABSOLUTE = ("align_corners", "tf_crop_and_resize", "half_pixel_symmetric", "tf_half_pixel_for_nn")
"""Ways to resize in which a place is read from where it lies in the whole image."""


@rule(*PLACE_BY_PLACE)
def _place_by_place(call: Call) -> Tensor:
    return joined(call, [given for given in call.inputs if given is not None])


@rule(*FIRST_ALONE)
def _first_alone(call: Call) -> list[Tensor]:
    tensor = call.input(0)
    for scale in (call.get(1), call.get(2)):
        if scale is not None and scale.elements > 1 and call.name in ("QuantizeLinear", "DequantizeLinear"):
            axis = call.axis(tensor, call.attribute("axis", 1))
            if tensor.side(axis) is not None:
                call.scene.sees_all(f"{call.name} with numbers that depend on the place")
    return [tensor, tensor] if call.name == "Dropout" else [tensor]


@rule("DynamicQuantizeLinear")
def _dynamic_quantize(call: Call) -> list[Tensor]:
    tensor = call.input(0)
    call.scene.sees_all_along("quantization to the largest value", tensor, tensor.spatial)
    return [tensor, of_shape((), image=tensor.image), of_shape((), image=tensor.image)]


@rule("BatchNormalization")
def _batch_normalization(call: Call) -> Tensor:
    tensor = call.input(0)
    if call.attribute("training_mode", 0):
        call.scene.sees_all_along("batch normalization in training mode", tensor, tensor.spatial)
    if tensor.rank > 1:
        call.scene.sees_all_along("batch normalization", tensor, [1])
    return tensor


@rule("InstanceNormalization", "GroupNormalization")
def _normalization(call: Call) -> Tensor:
    tensor = call.input(0)
    call.scene.sees_all_along(OVER_ALL[call.name], tensor, tensor.spatial)
    return tensor


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(call: Call) -> Tensor:
    tensor = call.input(0)
    call.scene.sees_all_along(OVER_ALL[call.name], tensor, tensor.spatial)
    return of_shape((*tensor.shape[:2], *[1] * (tensor.rank - 2)), image=tensor.image)


@rule("LayerNormalization", "RMSNormalization", "Softmax", "LogSoftmax", "Hardmax")
def _along_an_axis(call: Call) -> Tensor:
    tensor = call.input(0)
    first = call.axis(tensor, call.attribute("axis", -1 if call.scene.opset >= 13 or "Norm" in call.name else 1))
    alone = "Norm" not in call.name and call.scene.opset >= 13
    call.scene.sees_all_along(call.name, tensor, [first] if alone else range(first, tensor.rank))
    return tensor


@rule("LpNormalization", "CumSum")
def _along_one_axis(call: Call) -> Tensor:
    tensor = call.input(0)
    axes = call.integers(1, "axis") if call.name == "CumSum" else [call.attribute("axis", -1)]
    call.scene.sees_all_along(call.name, tensor, [call.axis(tensor, axis) for axis in axes or ()])
    return tensor


@rule("MeanVarianceNormalization")
def _mean_variance(call: Call) -> Tensor:
    tensor = call.input(0)
    axes = call.attribute("axes", [0, 2, 3])
    call.scene.sees_all_along(call.name, tensor, [call.axis(tensor, axis) for axis in axes])
    return tensor


@rule("LRN")
def _local_response(call: Call) -> Tensor:
    tensor = call.input(0)
    call.scene.sees_all_along("response normalization", tensor, [1])
    return tensor


@rule("Conv", "ConvInteger", "QLinearConv")
def _convolution(call: Call) -> Tensor:
    tensor, weight = call.input(0), call.input(3 if call.name == "QLinearConv" else 1)
    if any(given is not None and given.image for given in call.inputs[1:]):
        call.scene.sees_all("a convolution whose weights come from the image")
    return _pooled(call, tensor, weight.shape[2:], weight.shape[0])


@rule("AveragePool", "MaxPool", "LpPool")
def _pool(call: Call) -> list[Tensor]:
    tensor = call.input(0)
    made = _pooled(call, tensor, call.attribute("kernel_shape", []), tensor.shape[1])
    return [made, made]


def _pooled(call: Call, tensor: Tensor, kernel: tuple[int, ...] | list[int], channels: int) -> Tensor:
    """Windows over all axes from the third on."""
    axes = range(2, tensor.rank)
    strides = call.attribute("strides", [1] * len(axes))
    dilations = call.attribute("dilations", [1] * len(axes))
    if len(kernel) != len(axes) or call.scene.sees_all_along(call.name, tensor, [0, 1]):
        raise UnknownError(f"{call.name} of {tensor.rank} axes")
    for place, axis in enumerate(axes):
        size, step = tensor.shape[axis], int(strides[place])
        reach = (int(kernel[place]) - 1) * int(dilations[place]) + 1
        before, after = _pads(call, (place, place + len(axes)), size, reach, step)
        rounded = ceil if call.attribute("ceil_mode", 0) else floor
        count = rounded(Fraction(size + before + after - reach, step)) + 1
        if count < 1:
            raise UnknownError(f"{call.name} of an image smaller than its window")
        tensor = windowed(call, tensor, axis, count, Window(before, reach - 1 - before, step))
    return tensor.with_axis(1, Factor(channels))


def _pads(call: Call, places: tuple[int, int], size: int, reach: int, step: int) -> tuple[int, int]:
    """Before and after an axis, whose numbers stand at `places` of the attribute."""
    how = call.attribute("auto_pad", "NOTSET")
    if how in ("SAME_UPPER", "SAME_LOWER"):
        total = max(0, (ceil(size / step) - 1) * step + reach - size)
        few, many = total // 2, total - total // 2
        return (few, many) if how == "SAME_UPPER" else (many, few)
    pads = call.attribute("pads") if how == "NOTSET" else None
    return (0, 0) if pads is None else (int(pads[places[0]]), int(pads[places[1]]))


@rule("ConvTranspose")
def _transposed_convolution(call: Call) -> Tensor:
    tensor, weight = call.input(0), call.input(1)
    if weight.image:
        call.scene.sees_all("a convolution whose weights come from the image")
    axes = range(2, tensor.rank)
    ones, zeros = [1] * len(axes), [0] * len(axes)
    strides, dilations = call.attribute("strides", ones), call.attribute("dilations", ones)
    extra, fixed = call.attribute("output_padding", zeros), call.attribute("output_shape")
    # It is a product of matrices first: a column of the whole kernel for each place that goes in.
    call.scene.workspace = prod(weight.shape[1:]) * prod(tensor.shape[2:])
    if call.scene.sees_all_along(call.name, tensor, [0, 1]) or len(weight.shape) != tensor.rank:
        raise UnknownError(f"{call.name} of {tensor.rank} axes")
    for place, axis in enumerate(axes):
        size, step = tensor.shape[axis], int(strides[place])
        reach = (weight.shape[axis] - 1) * int(dilations[place]) + 1
        full = (size - 1) * step + reach + int(extra[place])
        how = call.attribute("auto_pad", "NOTSET")
        if fixed is not None or how in ("SAME_UPPER", "SAME_LOWER"):
            count = int(fixed[place]) if fixed is not None else size * step
            before = (full - count) // 2 if how == "SAME_UPPER" or fixed is not None else -((count - full) // 2)
        else:
            pads = call.attribute("pads", [0] * (2 * len(axes)))
            before, count = int(pads[place]), full - int(pads[place]) - int(pads[place + len(axes)])
        first, last, zero = Fraction(reach - 1 - before, step), Fraction(before, step), Fraction(0)
        tensor = windowed(call, tensor, axis, count, Window(max(first, zero), max(last, zero), Fraction(1, step)))
    return tensor.with_axis(1, Factor(weight.shape[1] * int(call.attribute("group", 1))))


@rule("Resize", "Upsample")
def _resize(call: Call) -> Tensor:
    tensor = call.input(0)
    sizes = _new_sizes(call, tensor)
    mode = call.attribute("mode", "nearest")
    how = call.attribute("coordinate_transformation_mode", "half_pixel" if call.scene.opset > 10 else "asymmetric")
    taps = TAPS.get(mode)
    if taps is None:
        raise UnknownError(f"{call.name} {str(mode)[:20]}")
    for axis, size in enumerate(sizes):
        have = tensor.shape[axis]
        if size == have:
            continue
        if tensor.side(axis) is not None and how in ABSOLUTE:
            call.scene.sees_all(f"{call.name} with {how}")
        step = Fraction(have, size)
        call.scene.ratios.append(step)
        # Averaging where it shrinks reads as many times more.
        reach = taps * max(Fraction(1), step) if call.attribute("antialias", 0) else Fraction(taps)
        tensor = windowed(call, tensor, axis, size, Window(reach, reach, step))
    return tensor


def _new_sizes(call: Call, tensor: Tensor) -> list[int]:
    old = call.name == "Upsample" or call.scene.opset < 11
    scales, sizes = call.get(1 if old else 2), call.get(3)
    named = call.attribute("axes")
    axes = range(tensor.rank) if named is None else [call.axis(tensor, axis) for axis in named]
    new = list(tensor.shape)
    if call.attribute("scales") is not None:
        found = [floor(size * scale) for size, scale in zip(new, call.attribute("scales"), strict=True)]
    elif sizes is not None and sizes.value is not None and not old:
        found = [int(size) for size in sizes.value]
        if call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise UnknownError(f"{call.name} that keeps the aspect ratio")
    elif scales is not None and scales.value is not None:
        found = [floor(new[axis] * float(scale)) for axis, scale in zip(axes, scales.value, strict=True)]
    else:
        raise UnknownError(f"{call.name} to a size that only a run shows")
    for axis, size in zip(axes, found, strict=True):
        new[axis] = size
    return new


@rule("DepthToSpace")
def _depth_to_space(call: Call) -> Tensor:
    tensor, block = call.input(0), int(call.attribute("blocksize", 1))
    for axis in (2, 3):
        tensor = tensor.with_axis(axis, spread(_plain(call, tensor, axis), block))
    return tensor.with_axis(1, Factor(tensor.shape[1] // block**2))


@rule("SpaceToDepth")
def _space_to_depth(call: Call) -> Tensor:
    tensor, block = call.input(0), int(call.attribute("blocksize", 1))
    for axis in (2, 3):
        tensor = windowed(
            call, tensor, axis, _plain(call, tensor, axis).size // block, Window(0, block - 1, block)
        )
    return tensor.with_axis(1, Factor(tensor.shape[1] * block**2))


def _plain(call: Call, tensor: Tensor, axis: int) -> Factor:
    if tensor.rank != 4 or len(tensor.axes[axis]) != 1 or tensor.side(1) is not None:
        raise UnknownError(call.name)
    return tensor.axes[axis][0]
