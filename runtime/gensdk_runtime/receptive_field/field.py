"""How far a translation model sees: decided from its graph, so that tiles are cut only where they can be.

A network of convolutions sees a bounded surrounding of each place, and tiles that overlap by twice as much give
what the whole image gives. One operator that looks at all places (a normalization over height and width, global
pooling, attention, positions that are counted from a corner) is enough, and each tile would come out in its own
way: the networks of CycleGAN and pix2pix are the best-known of the kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, lcm

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import IntegrityError
from gensdk_runtime.onnx_files.nodes import OnnxGraph, read_graph
from gensdk_runtime.programs import abilities
from gensdk_runtime.receptive_field.analysis import Analysis, analyse, inputs_of
from gensdk_runtime.spec.conditions import MAX_MARGIN, ReceptiveField, SourceSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.signature import HEIGHT, RESULT_HEIGHT, RESULT_WIDTH, WIDTH, GraphSpec

MOST = 2**50
"""Bytes of a run that are told apart; hostile graphs ask for more."""
SIDE = 256
"""Pixels a side, about, from which on sizes are compared."""
STEPS = ((0, 0), (1, 3), (8, 5))
"""Multiples that the sizes differ by; odd ones, since a size that halves to a whole number says little."""
FAR = 4
"""Times as many pixels a side, to see how memory grows."""
GRADIENT = "its steps are scaled by the mean gradient of the whole image"


@dataclass(frozen=True)
class _Fit:
    """Bytes as ``linear * pixels + square * pixels^2``."""

    linear: float
    square: float


def receptive_field(model: ModelSpec, data: bytes) -> ReceptiveField:
    """What a place of the result depends on, from the ONNX file `data` of the graph that translates.

    Never raises for a graph that it can't read: then the answer is that all is seen, which is always safe.
    """
    source = model.source
    if source is None:
        raise ValueError(f"model {model.name!r} translates no images")
    graph = model.graph(model.program.graphs[0])
    try:
        nodes = read_graph(data)
    except IntegrityError:
        return ReceptiveField(whole=True, reason="its graph can't be read")
    sizes = _sizes(graph, source)
    found = [_sighting(nodes, graph, source, size) for size in sizes]
    fit = _memory(sizes, found)
    far = _far(sizes)
    if far is not None:  # sizes that are close and odd are padded, which looks as if memory grew with the square
        seen_far = _sighting(nodes, graph, source, far)
        fit = fit if seen_far.memory is None else _memory([sizes[0], far], [found[0], seen_far])
    blank = ReceptiveField(whole=True, bytes_per_pixel=fit.linear, bytes_per_square=fit.square)
    if "dream" in abilities(model):
        return blank.model_copy(update={"reason": GRADIENT})
    reason = next((each.whole for each in found if each.whole), "")
    if not reason and any(each.ratios != found[0].ratios for each in found):
        reason = "resizing that depends on the image's size"
    margin, grid = max(each.margin for each in found), max(each.grid for each in found)
    period = _period(found)
    if not reason and period is None:
        reason = "padding that depends on the image's size"
    grid = lcm(grid, period or 1)
    if not reason and (margin > MAX_MARGIN or grid > MAX_MARGIN):
        reason = f"a place depends on {margin} pixels around it"
    if reason:
        return blank.model_copy(update={"reason": reason[:200]})
    return blank.model_copy(update={"whole": False, "margin": margin, "grid": grid})


def seen(bundle: Bundle) -> ModelSpec:
    """The bundle's model, with its receptive field: bundles of older versions are looked at for it."""
    model = bundle.manifest.model
    if model.source is None or model.source.receptive_field is not None:
        return model
    return with_field(model, bundle.read(bundle.manifest.graph_files[model.program.graphs[0]]["fp32"]))


def with_field(model: ModelSpec, data: bytes) -> ModelSpec:
    """The model with what the ONNX file `data` of its graph says; a model that translates no images is returned as
    it is."""
    if model.source is None:
        return model
    source = model.source.model_copy(update={"receptive_field": receptive_field(model, data)})
    return model.with_condition(source)


def _sizes(graph: GraphSpec, source: SourceSpec) -> list[tuple[int, int]]:
    """Sizes to compare; a graph that takes one size alone is looked at for that."""
    spec = graph.input(_source_name(graph))
    axes = set() if spec is None else set(spec.shape)
    base = source.padded(max(SIDE, source.smallest))
    sizes = []
    for up, down in STEPS:
        height = base + up * source.multiple if HEIGHT in axes else source.height
        width = base + down * source.multiple if WIDTH in axes else source.width
        sizes.append((height, width))
    return list(dict.fromkeys(sizes))


def _far(sizes: list[tuple[int, int]]) -> tuple[int, int] | None:
    """A size with sides that are many times as long, where they are free; None where none is."""
    height, width = (FAR * a if a != b else a for a, b in zip(sizes[0], sizes[-1], strict=True))
    return None if (height, width) == sizes[0] else (height, width)


def _period(found: list[Analysis]) -> int | None:
    """Of what number sizes that are padded become multiples of; None where they become something else."""
    if any(len(each.paddings) != len(found[0].paddings) for each in found):
        return None
    period = 1
    for paddings in zip(*(each.paddings for each in found), strict=True):
        if any(padding.total.denominator > 1 for padding in paddings):
            return None
        common = gcd(*(padding.total.numerator for padding in paddings))
        if any(padding.added != paddings[0].added for padding in paddings):
            if not all(0 <= padding.added < common for padding in paddings):
                return None
            period = lcm(period, common)
    return period


def _source_name(graph: GraphSpec) -> str:
    return "source" if graph.input("source") is not None else "variable"


def _sighting(nodes: OnnxGraph, graph: GraphSpec, source: SourceSpec, size: tuple[int, int]) -> Analysis:
    named = {
        "batch": 1,
        HEIGHT: size[0],
        WIDTH: size[1],
        RESULT_HEIGHT: size[0] * source.scale,
        RESULT_WIDTH: size[1] * source.scale,
    }
    shapes = {
        spec.name: [axis if isinstance(axis, int) else named.get(axis, 1) for axis in spec.shape]
        for spec in graph.inputs
    }
    name = _source_name(graph)
    spec = graph.input(name)
    last = spec is not None and spec.dtype == "uint8"
    outputs = [out.name for out in graph.outputs if out.name in ("image", "pixels", "gradient")]
    inputs = inputs_of(shapes, name, channels_last=last)
    return analyse(nodes, inputs, outputs, size=size, scale=source.scale)


def _memory(sizes: list[tuple[int, int]], found: list[Analysis]) -> _Fit:
    """A curve through the smallest and the largest size; zeros where memory is not known."""
    points = [
        (height * width, min(each.memory, MOST))
        for (height, width), each in zip(sizes, found, strict=True)
        if each.memory
    ]
    if len(points) < len(sizes):
        return _Fit(0.0, 0.0)
    (few, less), (many, more) = min(points), max(points)
    linear, square = less / few, 0.0
    if many > few:
        square = max(0.0, (more / many - less / few) / (many - few))
        linear = max(0.0, less / few - square * few)
    return _Fit(min(linear, 2.0**40), min(square, 2.0**40) if square * many > 0.01 * linear else 0.0)
