"""The export plan of a trained family: the model's description and the live modules behind its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.spec.model import ModelSpec

if TYPE_CHECKING:  # a plan of a model that was never in PyTorch needs none
    from torch import nn


@dataclass(frozen=True)
class ExportPlan:
    """A model ready to be previewed (torch backend), exported (ONNX) and proved (both, compared).

    `modules` has one module in eval mode for each graph of `model`, by name. Its ``forward`` takes the graph's
    inputs as positional tensors in the order of the GraphSpec, in their dtypes, and returns its outputs in
    order, as a tuple (a single tensor for a single output). It draws no random numbers.

    `half` names, for each graph, the submodules that FP16 turns to half precision (dotted paths from the
    graph's module). Everything outside stays float32: embeddings of time, solver updates, inverse CDFs.
    A module inside such a submodule that must stay float32 has the class attribute ``fp32_island = True``.

    `files`: those that the output and the conditions need beside graphs, by their names in the bundle, such as a
    vocabulary.
    `examples`: real images uint8 [n, H, W, C], or sounds float32 [n, samples], by the kind of condition, to prove
    a model with that is made from such; none: made-up ones alone.
    """

    model: ModelSpec
    modules: Mapping[str, nn.Module]
    half: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    examples: Mapping[str, NDArray[np.uint8] | NDArray[np.float32]] = field(default_factory=dict)
