"""Operators that move a window over an image: convolution and pooling, with ONNX's ways to pad.

Padding that depends on the image's size (auto_pad) is taken as it is at the model's own size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gensdk_export.importers.classifier.axis_operators import MAX_PAD
from gensdk_export.importers.classifier.node import Apply, Node

MAX_WINDOW = 400
"""Places of a window that the largest is taken of."""
Edges = tuple[int, int, int, int]
"""Padding: above, left, below, right."""


def convolution(node: Node) -> nn.Module:
    """A convolution of images with constant weights."""
    weight, bias = node.weight(1), node.constant(2)
    if weight.dim() != 4:
        raise node.refused(f"expected a convolution of images, got weights {list(weight.shape)}")
    stride, dilation = _pair(node, "strides"), _pair(node, "dilations")
    outputs, inputs, *kernel = weight.shape
    groups = int(node.get("group", 1))
    if groups < 1 or outputs % groups or node.shape[1:2] != (inputs * groups,):
        raise node.refused(
            f"weights {list(weight.shape)} don't fit {groups} groups of an input {list(node.shape)}"
        )
    around = edges(node, kernel, stride, dilation)
    even = around[0] == around[2] and around[1] == around[3]
    conv = nn.Conv2d(
        inputs * groups,
        outputs,
        (kernel[0], kernel[1]),
        stride,
        (around[0], around[1]) if even else 0,
        dilation,
        groups,
        bias is not None,
        device="meta",
    )
    conv.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(node.weight(2), requires_grad=False)
    return conv if even else nn.Sequential(padded(around, 0.0), conv)


def _pair(node: Node, name: str) -> tuple[int, int]:
    given = node.get(name) or [1, 1]
    if len(given) != 2 or min(given) < 1:
        raise node.refused(f"expected two {name} of at least 1, got {list(given)[:8]}")
    return int(given[0]), int(given[1])


def max_pool(node: Node) -> nn.Module:
    """Padded with the lowest number where PyTorch can't pad by itself."""
    kernel, stride = _kernel(node), _pair(node, "strides")
    if kernel[0] * kernel[1] > MAX_WINDOW:
        raise node.refused(
            f"expected a window of at most {MAX_WINDOW} places; its gradient has one kernel for each"
        )
    around = edges(node, kernel, stride, (1, 1))
    beyond = _beyond(node, kernel, stride, around)
    above, left, below, right = (edge + more for edge, more in zip(around, (0, 0, *beyond), strict=True))
    if (above, left) == (below, right) and 2 * above <= kernel[0] and 2 * left <= kernel[1]:
        return nn.MaxPool2d(kernel, stride, (above, left))
    lowest = float(torch.finfo(torch.float32).min)
    return nn.Sequential(padded((above, left, below, right), lowest), nn.MaxPool2d(kernel, stride))


def covers(node: Node) -> bool:
    """True if average pooling takes the mean of the whole image, at the model's own size."""
    if node.op != "AveragePool" or len(node.shape) != 4 or any(node.get("pads") or ()):
        return False
    return tuple(node.get("kernel_shape") or ()) == node.shape[2:]


def average_pool(node: Node) -> nn.Module:
    """What covers the whole image at the model's own size does so at any size."""
    if covers(node):
        return Apply(lambda x: x.mean(dim=(2, 3), keepdim=True), node)
    kernel, stride = _kernel(node), _pair(node, "strides")
    around = edges(node, kernel, stride, (1, 1))
    above, left, below, right = around
    more = _beyond(node, kernel, stride, around)
    counted = bool(node.get("count_include_pad", 0))
    even = (above, left) == (below, right) and not any(more) and 2 * above <= kernel[0] and 2 * left <= kernel[1]
    if even and (counted or not any(around)):
        return nn.AvgPool2d(kernel, stride, (above, left))
    return _MeanOfReal(kernel, stride, around if counted else (0, 0, 0, 0), around, more)


class _MeanOfReal(nn.Module):
    """The mean over those places of each window that count: the sum of all, over how many there are."""

    def __init__(
        self, kernel: Sequence[int], stride: Sequence[int], counted: Edges, around: Edges, more: Sequence[int]
    ) -> None:
        super().__init__()
        rest = [edge - have for edge, have in zip(around, counted, strict=True)]
        self.inner = padded(counted, 0.0)
        self.outer = padded((rest[0], rest[1], rest[2] + more[0], rest[3] + more[1]), 0.0)
        self.pool = nn.AvgPool2d((kernel[0], kernel[1]), (stride[0], stride[1]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        share: Tensor = self.pool(self.outer(torch.ones_like(x[:1, :1])))
        mean: Tensor = self.pool(self.outer(x)) / share
        return mean


def edges(node: Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Edges:
    """The padding of the node."""
    way = node.get("auto_pad", "NOTSET")
    if len(node.shape) != 4:
        raise node.refused(f"expected an image with four axes, got {list(node.shape)}")
    if way == "NOTSET":
        pads = [int(pad) for pad in node.get("pads") or (0, 0, 0, 0)]
        if len(pads) != 4 or not 0 <= min(pads) <= max(pads) <= MAX_PAD:
            raise node.refused(f"expected four pads of 0 to {MAX_PAD}, got {pads[:8]}")
        return pads[0], pads[1], pads[2], pads[3]
    if way not in ("VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.refused(f"no auto_pad {str(way)[:40]!r}")
    if way == "VALID":
        return 0, 0, 0, 0
    before, after = [], []
    for size, long, step, apart in zip(node.shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // step) - 1) * step + (long - 1) * apart + 1 - size, 0)
        less, rest = total // 2, total - total // 2
        before.append(less if way == "SAME_UPPER" else rest)
        after.append(rest if way == "SAME_UPPER" else less)
    return before[0], before[1], after[0], after[1]


def padded(around: Edges, value: float) -> nn.Module:
    """A module that pads with `value`."""
    above, left, below, right = around
    return nn.ConstantPad2d((left, right, above, below), value) if any(around) else nn.Identity()


def _kernel(node: Node) -> tuple[int, int]:
    if any(step != 1 for step in node.get("dilations") or ()):
        raise node.refused("pooling with dilation has no gradient graph")
    if not node.get("kernel_shape"):
        raise node.refused("expected a kernel_shape")
    return _pair(node, "kernel_shape")


def _beyond(node: Node, kernel: Sequence[int], stride: Sequence[int], around: Edges) -> tuple[int, int]:
    """With ceil_mode windows may reach over the end, by less than a stride; none may lie there as a whole."""
    if not node.get("ceil_mode", 0):
        return 0, 0
    if any(end > long - step for end, long, step in zip(around[2:], kernel, stride, strict=True)):
        raise node.refused("ceil_mode with so much padding may leave windows without a place of the image")
    return stride[0] - 1, stride[1] - 1
