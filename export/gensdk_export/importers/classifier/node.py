"""One node of a third-party graph, and modules that apply functions to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import ExportError


@dataclass(frozen=True)
class Node:
    """One node: `constants` by position among `inputs`; `shape` of its first input at the model's own size, empty
    where that is a constant or no tensor."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    constants: Mapping[int, Array] = field(default_factory=dict)
    shape: tuple[int, ...] = ()

    def get(self, name: str, otherwise: Any = None) -> Any:
        """An attribute; text as str."""
        value = self.attributes.get(name, otherwise)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def constant(self, index: int) -> Array | None:
        """Input `index` where it is a constant; None where there is none."""
        if index >= len(self.inputs) or not self.inputs[index]:
            return None
        if index not in self.constants:
            raise self.refused(f"its input {index} is computed from the image, expected a constant")
        return self.constants[index]

    def weight(self, index: int) -> Tensor:
        """Input `index` as a float32 tensor."""
        array = self.constant(index)
        if array is None:
            raise self.refused(f"its input {index} is missing")
        return torch.from_numpy(np.array(array, np.float32))

    def sizes(self, name: str, index: int) -> list[int] | None:
        """Whole numbers that are an attribute in old operator sets and an input in new ones."""
        if name in self.attributes:
            return [int(value) for value in np.atleast_1d(self.attributes[name])]
        array = self.constant(index)
        return None if array is None else [int(value) for value in np.atleast_1d(array)]

    def number(self, name: str, index: int) -> float | None:
        """As :meth:`sizes`, one number."""
        if name in self.attributes:
            return float(self.attributes[name])
        array = self.constant(index)
        if array is not None and array.size != 1:
            raise self.refused(f"expected one number as its input {index}, got {list(array.shape)}")
        return None if array is None else float(array.reshape(()))

    def refused(self, reason: str) -> ExportError:
        """The error that names this node."""
        return ExportError(f"operator {self.op} ({self.name[:80]!r}): {reason}")


class Apply(nn.Module):
    """A function of a node's inputs: those that flow come with each call, those that are constant stay."""

    def __init__(self, function: Callable[..., Any], node: Node, taken: int | None = None) -> None:
        super().__init__()
        self.function = function
        self.places: list[str | None] = []
        for index, name in enumerate(node.inputs[:taken]):
            if index in node.constants:
                self.register_buffer(f"constant{index}", torch.from_numpy(np.array(node.constants[index])))
                self.places.append(f"constant{index}")
            elif name:
                self.places.append(None)

    def forward(self, *flowing: Any) -> Any:
        """`flowing` in their places."""
        rest = iter(flowing)
        return self.function(*(next(rest) if place is None else getattr(self, place) for place in self.places))


class ApplySizes(nn.Module):
    """The same for whole numbers that describe the sizes of tensors: NumPy arrays of int or of torch.SymInt."""

    def __init__(self, function: Callable[..., Any], node: Node) -> None:
        super().__init__()
        self.function = function
        self.places = [node.constants.get(index) for index, name in enumerate(node.inputs) if name]

    def forward(self, *flowing: Any) -> Any:
        """`flowing` in their places."""
        rest = iter(flowing)
        return self.function(*(next(rest) if place is None else place for place in self.places))


Builder = Callable[[Node], nn.Module]
