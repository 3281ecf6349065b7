"""What operators do that move, cut, join and multiply tensors."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np

from gensdk_runtime.onnx_files.nodes import OnnxTensor, Values
from gensdk_runtime.receptive_field.rules import (
    Call,
    Padding,
    Window,
    joined,
    rule,
    side_name,
    weight_tensor,
    windowed,
)
from gensdk_runtime.receptive_field.tensors import (
    Axis,
    Factor,
    Tensor,
    UnknownError,
    of_shape,
    of_value,
    regrouped,
)

LONGEST = 4096
"""Places of a list of places that is looked at."""


@rule("Constant")
def _constant(call: Call) -> Tensor:
    for name in ("value", "value_int", "value_ints", "value_float", "value_floats"):
        found = call.attribute(name)
        if isinstance(found, OnnxTensor):
            return weight_tensor(found)
        if found is not None:
            return of_value(np.asarray(found, np.int64 if "int" in name else np.float32))
    raise UnknownError("Constant")


@rule("Shape")
def _shape(call: Call) -> Tensor:
    tensor = call.input(0)
    start, end = call.attribute("start", 0), call.attribute("end")
    value = np.asarray(tensor.shape, np.int64)[slice(start, end)]
    return of_value(value, sized=bool([axis for axis in range(tensor.rank)[start:end] if axis in tensor.spatial]))


@rule("Size")
def _size(call: Call) -> Tensor:
    tensor = call.input(0)
    return of_value(np.asarray(tensor.elements, np.int64), sized=tensor.image)


@rule("ConstantOfShape", "Range", "RandomNormal", "RandomUniform", "EyeLike")
def _made(call: Call) -> Tensor:
    """What has no known value; of a shape that is known, if it comes from one."""
    shape = call.get(0)
    if call.name != "ConstantOfShape" or shape is None or shape.value is None:
        raise UnknownError(call.name)
    axes = tuple((Factor(int(size)),) for size in shape.value)  # one number everywhere
    return Tensor(axes)


@rule("RandomNormalLike", "RandomUniformLike")
def _random(call: Call) -> Tensor:
    raise UnknownError(f"{call.name}, which draws by itself,")


@rule("Transpose")
def _transpose(call: Call) -> Tensor:
    tensor = call.input(0)
    order = call.attribute("perm", list(reversed(range(tensor.rank))))
    return replace(tensor, axes=tuple(tensor.axes[axis] for axis in order), value=None)


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(call: Call) -> Tensor:
    tensor = call.input(0)
    return replace(tensor, axes=regrouped(tensor.axes, _new_shape(call, tensor)), value=None)


def _new_shape(call: Call, tensor: Tensor) -> list[int]:
    shape = list(tensor.shape)
    if call.name == "Flatten":
        axis = int(call.attribute("axis", 1)) % (tensor.rank + 1)
        return [prod(shape[:axis]), prod(shape[axis:])]
    if call.name == "Reshape":
        wanted = call.integers(1, "shape") or []
        if not call.attribute("allowzero", 0):
            wanted = [shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
        known = prod(size for size in wanted if size != -1)
        return [tensor.elements // max(1, known) if size == -1 else size for size in wanted]
    axes = call.integers(1, "axes")
    if call.name == "Squeeze":
        gone = {axis % tensor.rank for axis in axes} if axes is not None else None
        return [size for axis, size in enumerate(shape) if (axis not in gone if gone is not None else size != 1)]
    rank = tensor.rank + len(axes or ())
    for axis in sorted(axis % rank for axis in axes or ()):
        shape.insert(axis, 1)
    return shape


@rule("Expand", "Tile")
def _repeat(call: Call) -> Tensor:
    tensor, given = call.input(0), call.integers(1, "shape") or []
    lead = max(0, len(given) - tensor.rank)
    axes: list[Axis] = [*[(Factor(1),)] * lead, *tensor.axes]
    given = [1] * (len(axes) - len(given)) + given
    for axis, number in enumerate(given):
        have = prod(factor.size for factor in axes[axis])
        size = have * number if call.name == "Tile" else max(have, number)
        if size == have:
            continue
        if tensor.image and axis >= lead and tensor.side(axis - lead) is not None:
            call.scene.sees_all(f"{call.name} {side_name({tensor.side(axis - lead)})}")
        axes[axis] = (Factor(size, varies=have > 1 and axes[axis][0].varies),)
    return replace(tensor, axes=tuple(axes), value=None)


@rule("Pad")
def _pad(call: Call) -> Tensor:
    tensor, mode = call.input(0), call.attribute("mode", "constant")
    pads = call.integers(1, "pads") or call.integers(1, "paddings") or []
    named = call.integers(3, "axes") if len(call.inputs) > 3 else None
    axes = range(tensor.rank) if named is None else [call.axis(tensor, axis) for axis in named]
    given = call.get(1)
    for place, axis in enumerate(axes):
        before, after = pads[place], pads[place + len(axes)]
        span = tensor.axes[axis][0].span
        if span is not None and given is not None and given.sized:
            places = (before + after, tensor.shape[axis] + before + after)
            call.scene.paddings.append(Padding(*(number * span.stride for number in places)))
        if not before and not after:
            continue
        if mode == "wrap":
            call.scene.sees_all_along("padding with the other end", tensor, [axis])
        size = tensor.shape[axis] + before + after
        tensor = windowed(call, tensor, axis, size, Window(before, -before if after <= 0 else max(-before, after)))
    return tensor


@rule("Slice")
def _slice(call: Call) -> Tensor:
    tensor = call.input(0)
    starts, ends = call.integers(1, "starts") or [], call.integers(2, "ends") or []
    axes, steps = call.integers(3, "axes") or list(range(len(starts))), call.integers(4, "steps")
    given = call.get(1)
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        at = call.axis(tensor, axis)
        places = range(tensor.shape[at])[start:end:step]
        if len(places) == tensor.shape[at] and step == 1:
            continue
        if step < 0:
            call.scene.sees_all_along("turning an image round", tensor, [at])
        first = places.start if len(places) else 0
        if given is not None and given.sized and tensor.side(at) is not None:
            call.scene.ratios.append(Fraction(first))
        tensor = windowed(call, tensor, at, len(places), Window(-first, first, abs(step)))
    return tensor


@rule("Split")
def _split(call: Call) -> list[Tensor]:
    tensor = call.input(0)
    axis = call.axis(tensor, call.attribute("axis", 0))
    call.scene.sees_all_along("Split", tensor, [axis])
    count = len(call.node.outputs)
    size = -(-tensor.shape[axis] // count)
    sizes = call.integers(1, "split") or [min(size, tensor.shape[axis] - i * size) for i in range(count)]
    return [tensor.with_axis(axis, Factor(each, varies=tensor.axes[axis][0].varies)) for each in sizes]


@rule("Concat")
def _concat(call: Call) -> Tensor:
    tensors = [given for given in call.inputs if given is not None]
    image = any(tensor.image for tensor in tensors)
    axis = call.axis(tensors[0], call.attribute("axis", 0))
    for tensor in tensors:
        call.scene.sees_all_along("Concat", tensor, [axis])
    size, varies = sum(tensor.shape[axis] for tensor in tensors), True
    one = [
        replace(tensor, axes=(*tensor.axes[:axis], (Factor(1),), *tensor.axes[axis + 1 :])) for tensor in tensors
    ]
    made = joined(call, one)
    return replace(made.with_axis(axis, Factor(size, varies=varies)), image=image)


@rule("Gather")
def _gather(call: Call) -> Tensor:
    tensor, places = call.input(0), call.input(1)
    axis = call.axis(tensor, call.attribute("axis", 0))
    if places.image:  # a table that the image chooses from: place by place
        if tensor.image:
            raise UnknownError("Gather of an image at places that it chooses")
        rest = [of_shape(tensor.shape[:axis]).axes, places.axes, of_shape(tensor.shape[axis + 1 :]).axes]
        return Tensor(tuple(axis for part in rest for axis in part), image=True)
    if tensor.image and tensor.side(axis) is not None:
        return _gathered_places(call, tensor, places, axis)
    axes = (*tensor.axes[:axis], *places.axes, *tensor.axes[axis + 1 :])
    return Tensor(axes, image=tensor.image, sized=tensor.sized or places.sized)


def _gathered_places(call: Call, tensor: Tensor, places: Tensor, axis: int) -> Tensor:
    """Rows by number: mirrored edges and repeated rows come as such lists; others have no rule in them."""
    found = places.value
    if found is None or found.ndim != 1 or found.size > LONGEST or len(tensor.axes[axis]) > 1:
        call.scene.sees_all("Gather of places")
        return Tensor((*tensor.axes[:axis], *of_shape(places.shape).axes, *tensor.axes[axis + 1 :]), image=True)
    wanted = np.where(found < 0, found + tensor.shape[axis], found).astype(np.int64)
    for step in (Fraction(1), Fraction(tensor.shape[axis], max(1, wanted.size))):
        if _regular(wanted, step):
            apart = [Fraction(int(place)) - j * step for j, place in enumerate(wanted)]
            return windowed(call, tensor, axis, wanted.size, Window(-min(apart), max(apart), step))
    call.scene.sees_all("Gather of places")
    return tensor.with_axis(axis, Factor(wanted.size))


def _regular(places: Values, step: Fraction) -> bool:
    """True if the middle half of `places` goes on in one way, `step` a place on average."""
    quarter, period = len(places) // 4, step.denominator
    middle = places[quarter : len(places) - quarter]
    return len(middle) > period and bool((middle[period:] - middle[:-period] == step.numerator).all())


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


@rule(*(f"Reduce{name}" for name in REDUCTIONS), "ArgMax", "ArgMin")
def _reduce(call: Call) -> Tensor:
    tensor = call.input(0)
    if call.name.startswith("Arg"):
        axes: list[int] | None = [int(call.attribute("axis", 0))]
    else:
        axes = call.integers(1, "axes")
    if not axes:
        if call.attribute("noop_with_empty_axes", 0):
            return tensor
        axes = list(range(tensor.rank))
    gone = sorted(call.axis(tensor, axis) for axis in axes)
    call.scene.sees_all_along(call.name, tensor, gone)
    keep = bool(call.attribute("keepdims", 1))
    kept = [(Factor(1),) if axis in gone else parts for axis, parts in enumerate(tensor.axes)]
    left = [parts for axis, parts in enumerate(kept) if keep or axis not in gone]
    return replace(tensor, axes=tuple(left), value=None)


@rule("TopK")
def _top(call: Call) -> list[Tensor]:
    tensor = call.input(0)
    axis, count = call.axis(tensor, call.attribute("axis", -1)), call.integers(1, "k") or [1]
    call.scene.sees_all_along("TopK", tensor, [axis])
    made = tensor.with_axis(axis, Factor(count[0]))
    return [made, made]


@rule("MatMul", "MatMulInteger", "Gemm")
def _product(call: Call) -> Tensor:
    a, b = call.input(0), call.input(1)
    if call.name == "Gemm":
        a = _turned(a) if call.attribute("transA", 0) else a
        b = _turned(b) if call.attribute("transB", 0) else b
    if min(a.rank, b.rank) < 2:
        raise UnknownError(f"{call.name} of a vector")
    across = call.scene.sees_all_along(call.name, a, [a.rank - 1])
    across = call.scene.sees_all_along(call.name, b, [b.rank - 2]) or across
    if b.image and b.side(b.rank - 1) is not None and a.image:
        call.scene.sees_all("attention")
    rows = replace(a, axes=(*a.axes[:-1], (Factor(1),)), value=None)
    columns = replace(b, axes=(*b.axes[:-2], (Factor(1),), b.axes[-1]), value=None)
    if not a.image:  # a weight: what varies along its rows are channels, not places
        rows = replace(rows, axes=(*rows.axes[:-2], (Factor(a.shape[-2]),), (Factor(1),)))
    if not b.image:
        columns = replace(columns, axes=(*columns.axes[:-1], (Factor(b.shape[-1]),)))
    return joined(call, [rows, columns])


def _turned(tensor: Tensor) -> Tensor:
    return replace(tensor, axes=tuple(reversed(tensor.axes)), value=None)


@rule("Einsum")
def _einsum(call: Call) -> Tensor:
    equation = str(call.attribute("equation", "")).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    operands, tensors = terms.split(","), [call.input(place) for place in range(len(call.inputs))]
    if not arrow or "." in equation or [len(term) for term in operands] != [tensor.rank for tensor in tensors]:
        raise UnknownError("Einsum")
    axes, owners = dict[str, Axis](), dict[str, int]()
    for term, tensor in zip(operands, tensors, strict=True):
        for letter, axis in zip(term, tensor.axes, strict=True):
            along = tensor.image and any(factor.side is not None for factor in axis)
            if along and (letter not in result or (letter in owners and axes[letter] != axis)):
                call.scene.sees_all("attention")
            if along or letter not in axes:
                axes[letter] = axis
            if along:
                owners[letter] = 1
    image = any(tensor.image for tensor in tensors)
    made = Tensor(tuple(axes[letter] for letter in result), image=image)
    sides = [side for side, _ in made.spans()]
    if len(sides) != len(set(sides)):
        call.scene.sees_all("attention")
    return made
