"""What a translation model sees of an image, read off its graph and then tried: pixels far away are changed.

The graph decides (:mod:`gensdk_runtime.receptive_field.field`); where it says that tiles give what the whole image
gives, a run must agree, or tiles are not cut.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.methods.tiles import Cut
from gensdk_runtime.programs import abilities
from gensdk_runtime.receptive_field.field import with_field
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import HEIGHT, WIDTH, GraphSpec

LARGEST_PROOF = 768
"""Pixels a side: a model that sees farther is not tried, since a run would take long; its graph has the word."""
BEYOND = 32
SAME = 1e-4
"""What a pixel may move, in parts of the range: kernels round, and nothing else may happen."""


def with_proved_field(model: ModelSpec, graphs: Mapping[str, bytes]) -> ModelSpec:
    """The model with its receptive field; `graphs`: the float32 files by name. A model of another kind is returned
    unchanged."""
    if model.source is None:
        return model
    name = model.program.graphs[0]
    found = with_field(model, graphs[name])
    source = found.source
    if source is None or source.receptive_field is None or source.receptive_field.whole:
        return found
    if "dream" in abilities(model) or not _moves_far_away(found, source, graphs[name]):
        return found
    field = source.receptive_field.model_copy(
        update={"whole": True, "margin": 0, "grid": 1, "reason": "pixels far away moved it in a trial"}
    )
    return found.with_condition(source.model_copy(update={"receptive_field": field}))


def _moves_far_away(model: ModelSpec, source: SourceSpec, data: bytes) -> bool:
    """True if the result moves where what lies beyond the margin is changed, along either side."""
    graph, margin = model.graph(model.program.graphs[0]), Cut.of(source).margin
    spec = graph.input("source")
    if spec is None:
        return False
    free = {axis for axis in spec.shape if isinstance(axis, str)}
    with create_backend("onnxruntime").open(graph, MemoryGraph(data), precision="fp32") as session:
        for side, name in enumerate((HEIGHT, WIDTH)):
            length = source.padded(margin + 2 * BEYOND) if name in free else (source.height, source.width)[side]
            if margin + BEYOND > length or length > LARGEST_PROOF:
                continue
            sizes = {"batch": 1, HEIGHT: source.height, WIDTH: source.width, name: length}
            if _moved(session, graph, source, sizes, side=side, kept=length - margin - BEYOND // 2):
                return True
    return False


def _moved(
    session: Session, graph: GraphSpec, source: SourceSpec, sizes: Mapping[str, int], *, side: int, kept: int
) -> bool:
    """True if pixels of the result change that lie more than the margin from those that do."""
    spec = graph.require_input("source")
    last = spec.dtype == "uint8"
    generator = np.random.default_rng(0)
    shape = [axis if isinstance(axis, int) else sizes.get(axis, 1) for axis in spec.shape]
    low, high = source.value_range
    drawn = generator.random(shape)
    first = (drawn * 255).astype(np.uint8) if last else (low + (high - low) * drawn).astype(np.float32)
    second = first.copy()
    axis = side + (1 if last else 2)
    begin = kept + Cut.of(source).margin
    beyond = tuple(slice(begin, None) if place == axis else slice(None) for place in range(4))
    second[beyond] = 255 if last else high
    rest: dict[str, Array] = {}
    for other in graph.inputs:
        if other.name != "source":
            fixed = [size if isinstance(size, int) else sizes.get(size, 1) for size in other.shape]
            rest[other.name] = np.zeros(fixed, other.dtype)
    before, after = (session.run({**rest, "source": image})["image"] for image in (first, second))
    seen = tuple(slice(0, source.scale * kept) if place == side + 2 else slice(None) for place in range(4))
    result = graph.output("image")
    width = 1.0 if result is None or result.value_range is None else result.value_range[1] - result.value_range[0]
    return bool(np.abs(before[seen] - after[seen]).max() > SAME * width)
