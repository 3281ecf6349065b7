"""Finds group normalizations that were written out, so that OpenVINO runs each as one operation.

Bundles have them as an instance normalization over the groups, which is what ONNX Runtime is fastest at; OpenVINO
is fastest at its own GroupNormalization (Wu and He, 2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_VIEWS = frozenset(("Broadcast", "Convert", "Reshape", "Squeeze", "Unsqueeze"))


def fuse_group_norms(model: Any) -> int:
    """Replaces them in `model`, an ``ov.Model`` of static shapes; how many there were."""
    norms = [node for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]
    return sum(_fuse(node) for node in norms)


def _fuse(norm: Any) -> bool:
    """Reshape to [N, groups, rest], normalize over the rest, reshape back; then scale and shift, if constant."""
    from openvino import opset12 as operations

    given, attributes = norm.input_value(0).get_node(), norm.get_attributes()
    axes = _values(norm.input_value(1))
    back = _way_back(norm.output(0))
    if given.get_type_name() != "Reshape" or back is None or axes is None or norm.get_output_size() != 1:
        return False
    x, grouped = given.input_value(0), list(norm.get_output_shape(0))
    shape = list(x.get_shape())
    if len(grouped) != 3 or axes.tolist() not in ([2], [-1]) or not attributes["normalize_variance"]:
        return False
    if len(shape) < 3 or list(back.get_shape()) != shape or grouped[0] != shape[0] or shape[1] % grouped[1]:
        return False
    if attributes["eps_mode"].lower() != "inside_sqrt" or not x.get_element_type().is_real():
        return False
    dtype, channels = x.get_element_type().to_dtype(), shape[1]
    back, scale = _constant_after(back, "Multiply", channels, len(shape))
    back, shift = _constant_after(back, "Add", channels, len(shape))
    result = operations.group_normalization(
        x,
        operations.constant(np.ones(channels, dtype) if scale is None else scale.astype(dtype)),
        operations.constant(np.zeros(channels, dtype) if shift is None else shift.astype(dtype)),
        grouped[1],
        attributes["eps"],
    )
    back.replace(result.output(0))
    return True


def _way_back(output: Any) -> Any:
    """The output of the reshape that follows the normalization at `output`; None where more than that follows."""
    while True:
        user = _only_user(output)
        if user is None:
            return None
        kind = user.get_type_name()
        if kind == "Reshape":
            return user.output(0)
        neutral = {"Multiply": 1.0, "Add": 0.0}.get(kind)
        values = _other(user, output)
        if neutral is None or values is None or not (values == neutral).all():
            return None
        output = user.output(0)


def _constant_after(output: Any, kind: str, channels: int, rank: int) -> tuple[Any, NDArray[Any] | None]:
    """What comes after a scale or shift of the `channels` by constants, and those [C]; else `output` and None."""
    user = _only_user(output)
    if user is None or user.get_type_name() != kind:
        return output, None
    values = _other(user, output)
    ports = [port for port in user.input_values() if port != output]
    if values is None or values.size != channels or len(ports) != 1:
        return output, None
    shape = list(ports[0].get_shape())
    if [1] * (rank - len(shape)) + shape != [1, channels, *[1] * (rank - 2)]:
        return output, None
    return user.output(0), values.reshape(channels)


def _only_user(output: Any) -> Any:
    """The one operation that reads the values of `output`, not just its shape; None where there are several."""
    users = [port.get_node() for port in output.get_target_inputs()]
    users = [user for user in users if user.get_type_name() != "ShapeOf"]
    return users[0] if len(users) == 1 else None


def _other(user: Any, output: Any) -> NDArray[Any] | None:
    """The constant that `user` combines `output` with, in the shape it was stored; None where it is none."""
    others = [value for value in user.input_values() if value != output]
    return _values(others[0]) if len(others) == 1 else None


def _values(output: Any) -> NDArray[Any] | None:
    """The numbers of a constant, seen through what only repeats or arranges them."""
    node = output.get_node()
    while node.get_type_name() in _VIEWS:
        node = node.input_value(0).get_node()
    return np.asarray(node.data) if node.get_type_name() == "Constant" else None
