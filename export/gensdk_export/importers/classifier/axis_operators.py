"""Operators that move, join and cut axes, and change no value.

They may not mix the images of a batch; what would is refused here, or found when two images are compared with each
alone.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gensdk_export.importers.classifier.node import Apply, Node

MAX_PICKED = 64
"""Places of an axis that Gather may pick out of an image's features."""
MAX_PAD = 4096


def reshape(node: Node) -> nn.Module:
    """Reshape; where the file writes down a batch of 1, any."""
    copies = not node.get("allowzero", 0)
    flows = 0 not in node.constants

    def reshape(x: Tensor, sizes: Any) -> Tensor:
        target = sizes.tolist()
        whole = [
            x.shape[axis] if copies and isinstance(size, int) and size == 0 else size
            for axis, size in enumerate(target)
        ]
        # Files whose batch is 1 write it down here; copied from the input, it may be any.
        if flows and len(whole) > 1 and isinstance(whole[0], int) and whole[0] == 1:
            whole[0] = x.shape[0]
        return x.reshape(whole)

    return Apply(reshape, node)


def flatten(node: Node) -> nn.Module:
    """Flatten from the first axis after the batch on."""
    axis = int(node.get("axis", 1))
    if axis in (1, 1 - len(node.shape)):
        return Apply(lambda x: x.flatten(1), node)
    raise node.refused(f"axis {axis} would mix the images of a batch")


def squeeze(node: Node) -> nn.Module:
    """Squeeze."""
    axes = node.sizes("axes", 1)
    if axes is None:
        axes = [axis for axis, size in enumerate(node.shape) if size == 1 and axis]
    return Apply(lambda x: x.squeeze(tuple(axes)), node, taken=1)


def unsqueeze(node: Node) -> nn.Module:
    """Unsqueeze."""
    axes = node.sizes("axes", 1) or []

    def unsqueeze(x: Tensor) -> Tensor:
        rank = x.dim() + len(axes)
        return reduce(lambda value, axis: value.unsqueeze(axis), sorted(axis % rank for axis in axes), x)

    return Apply(unsqueeze, node, taken=1)


def transpose(node: Node) -> nn.Module:
    """Transpose."""
    order = node.get("perm")
    return Apply(lambda x: x.permute(*(order or range(x.dim() - 1, -1, -1))), node)


def concat(node: Node) -> nn.Module:
    """Concat."""
    axis = int(node.get("axis", 1))
    return Apply(lambda *parts: torch.cat(parts, dim=axis), node)


def split(node: Node) -> nn.Module:
    """Split, not of the batch."""
    axis, parts = int(node.get("axis", 0)), node.sizes("split", 1)
    length = node.shape[axis] if node.shape and axis else 0
    each = -(-length // len(node.outputs))
    sizes = parts or [min(each, length - start) for start in range(0, length, each or 1)]
    if not axis or sum(sizes) != length or len(sizes) != len(node.outputs):
        raise node.refused(f"its parts {sizes[:8]} don't add up to the axis {axis} of {list(node.shape)}")
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return Apply(
        lambda x: tuple(x.narrow(axis, start, size) for start, size in zip(starts, sizes, strict=True)),
        node,
        taken=1,
    )


def cut(node: Node) -> nn.Module:
    """Slice with constant places."""
    starts, ends = node.sizes("starts", 1) or [], node.sizes("ends", 2) or []
    axes = node.sizes("axes", 3) or list(range(len(starts)))
    steps = node.sizes("steps", 4) or [1] * len(starts)
    if min(steps, default=1) < 1 or not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.refused("expected a start, an end and a step of at least 1 for each axis")

    def through(x: Tensor) -> Tensor:
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            x = torch.ops.aten.slice.Tensor(x, axis, start, end, step)
        return x

    return Apply(through, node, taken=1)


def gather(node: Node) -> nn.Module:
    """Some places of an axis, one after the other: the gradient of a gather is a scatter, which engines refuse."""
    axis, indices = int(node.get("axis", 0)), node.constant(1)
    if indices is None or indices.ndim > 1 or indices.size > MAX_PICKED:
        raise node.refused(f"expected at most {MAX_PICKED} constant places in a row")
    places = [int(index) for index in np.atleast_1d(indices)]

    def pick(x: Tensor) -> Tensor:
        parts = [x.narrow(axis, place % x.shape[axis], 1) for place in places]
        return torch.cat(parts, dim=axis) if indices.ndim else parts[0].squeeze(axis)

    return Apply(pick, node, taken=1)


def pad(node: Node) -> nn.Module:
    """Pad with a constant."""
    mode, rank = node.get("mode", "constant"), len(node.shape)
    amounts, value = node.sizes("pads", 1), node.number("value", 2)
    axes = node.sizes("axes", 3) if len(node.inputs) > 3 else list(range(rank))
    if mode != "constant" or amounts is None or axes is None or len(amounts) != 2 * len(axes):
        raise node.refused(f"expected mode constant and two amounts for each axis, got mode {mode!r}")
    if max(map(abs, amounts), default=0) > MAX_PAD:
        raise node.refused(f"expected amounts of at most {MAX_PAD}")
    around = {axis % rank: (amounts[i], amounts[i + len(axes)]) for i, axis in enumerate(axes)}
    flat = [amount for axis in reversed(range(rank)) for amount in around.get(axis, (0, 0))]
    return Apply(lambda x: functional.pad(x, flat, value=value or 0.0), node, taken=1)
