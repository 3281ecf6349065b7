"""The weights of embedded bundles as torch has them, found in their ONNX files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import torch
from torch import Tensor

from gensdk_runtime.bundles.bundle import Bundle


def embedded_weights(bundle: str, wanted: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The weights of an embedded bundle under a network's own names, of the shapes that are `wanted`.

    A graph calls a weight ``denoiser.`` or the like and then its name; an inner layer of the same name has more
    before it. Raises KeyError where one is missing.
    """
    stored: dict[str, Tensor] = {}
    with Bundle.open(bundle) as opened:
        for name in opened.manifest.model.program.graphs:
            graph = onnx.load_from_string(opened.graph_source(name, "fp32").read()).graph
            for tensor in graph.initializer:
                stored[tensor.name] = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
    found = {}
    for key, shape in wanted.items():
        names = [name for name in stored if name.endswith(f".{key}") and list(stored[name].shape) == list(shape)]
        if not names:
            raise KeyError(f"the embedded {bundle} has no weight {key!r} of shape {list(shape)}")
        found[key] = stored[min(names, key=len)]
    return found
