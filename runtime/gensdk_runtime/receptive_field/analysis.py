"""One pass over a graph: what each place of its result depends on, and what memory a run takes.

The pass is made for one size; :func:`gensdk_runtime.receptive_field.field.receptive_field` compares several. What
it does not know (an operator without a rule, a subgraph, a shape that only a run shows) counts as seeing all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import gensdk_runtime.receptive_field.image_operators
import gensdk_runtime.receptive_field.structural_operators  # noqa: F401 - both register their rules
from gensdk_runtime.onnx_files.nodes import OnnxGraph, OnnxNode
from gensdk_runtime.receptive_field.rules import RULES, Call, Padding, Scene, source_tensor, weight_tensor
from gensdk_runtime.receptive_field.shape_arithmetic import evaluated
from gensdk_runtime.receptive_field.tensors import Tensor, UnknownError, of_shape, of_value

NUMBER_BYTES = 4
KEPT = 2
"""What ONNX Runtime takes of memory, in parts of what lives at once: it holds copies in a layout of its own, and
gaps. Measured: 1.3 (pix2pix) to 1.8 (CycleGAN) times as much."""
MAX_NODES = 20_000
MAX_KNOWN = 2**24
"""Numbers that are worked out before any image comes, in all nodes together."""
_AS_HOSTILE_FILES_HAVE_IT = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    TypeError,
    ValueError,
)
"""What a rule raises where attributes or shapes are not what the operator has."""
SHAPES = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Tile": 1}
"""Which input gives the shape of the output alone, and has no part in its numbers."""


@dataclass(frozen=True)
class Analysis:
    """The result of one pass.

    `whole`: why a place depends on all of the source; empty where it does not. `margin`: pixels of the source
    around a place that it depends on. `grid`: multiples at which strides fall on the same pixels. `memory`: bytes
    that live at the same time, at most; None where a shape is not known. `ratios`: how nodes change sizes; a
    difference between two sizes shows that they depend on it. `paddings`: what nodes add that depends on the size.
    """

    whole: str
    margin: int
    grid: int
    memory: int | None
    ratios: tuple[Fraction, ...] = ()
    paddings: tuple[Padding, ...] = ()


def analyse(
    graph: OnnxGraph, inputs: Mapping[str, Tensor], outputs: Sequence[str], *, size: tuple[int, int], scale: int
) -> Analysis:
    """Follows `inputs` to `outputs`, which are `scale` times the `size` (height, width) of the source."""
    scene = Scene(size, graph.opset)
    nodes = _needed(graph, outputs)
    known: dict[str, Tensor] = {name: weight_tensor(weight) for name, weight in graph.weights.items()}
    weights = set(known)
    known |= inputs
    last_use = {name: place for place, node in enumerate(nodes) for name in node.inputs}
    live = {name: inputs[name].elements for name in inputs}
    total = most = sum(live.values())
    try:
        if len(nodes) > MAX_NODES:
            raise UnknownError(f"a graph of over {MAX_NODES} nodes")
        for place, node in enumerate(nodes):
            _step(scene, node, known)
            for name in node.outputs:
                if name in known and name not in weights:
                    live[name] = known[name].elements
                    total += live[name]
            most, scene.workspace = max(most, total + scene.workspace), 0
            for name in set(node.inputs):
                if last_use[name] == place and name not in outputs:
                    total -= live.pop(name, 0)
        if not all(name in known for name in outputs):
            raise UnknownError("where its result comes from")
        results = [known[name] for name in outputs]
    except UnknownError as failure:
        scene.sees_all(f"{failure} is not known to gensdk")
        return Analysis(scene.whole, 0, 1, None)
    margin = max([0, *(_margin(scene, result, scale) for result in results)])
    memory = KEPT * NUMBER_BYTES * most
    return Analysis(scene.whole, margin, scene.grid, memory, tuple(scene.ratios), tuple(scene.paddings))


def _needed(graph: OnnxGraph, outputs: Iterable[str]) -> list[OnnxNode]:
    """The nodes that `outputs` come from, in their order."""
    wanted, found = set(outputs), list[OnnxNode]()
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(name for name in node.inputs if name)
            found.append(node)
    return found[::-1]


def _step(scene: Scene, node: OnnxNode, known: dict[str, Tensor]) -> None:
    """Adds the outputs of `node` to what is known."""
    if any(name and name not in known for name in node.inputs):
        raise UnknownError(f"{node.operator[:60]} after what")
    inputs = tuple(known[name] if name else None for name in node.inputs)
    sized = any(given is not None and given.sized for given in inputs[: SHAPES.get(node.operator)])
    if node.domain in ("", "ai.onnx") and not any(given is not None and given.image for given in inputs):
        value = evaluated(node, [None if given is None else given.value for given in inputs])
        if value is not None:
            scene.known += value.size
            if scene.known > MAX_KNOWN:
                raise UnknownError("so much arithmetic of shapes")
            known[node.outputs[0]] = of_value(value, sized=sized)
            return
    rule = RULES.get(node.operator) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        raise UnknownError(f"{node.domain}.{node.operator}"[:60] if node.domain else node.operator[:60])
    try:
        made = rule(Call(scene, node, inputs))
    except _AS_HOSTILE_FILES_HAVE_IT as failure:
        raise UnknownError(f"{node.operator[:60]} as it stands there") from failure
    for name, tensor in zip(node.outputs, made if isinstance(made, list) else [made], strict=False):
        known[name] = scene.settled(tensor)


def _margin(scene: Scene, result: Tensor, scale: int) -> int:
    """The largest distance at which a place of the result looks; notes where its places are not the source's."""
    if scene.whole:
        return 0
    spans = dict(result.spans())
    if set(spans) != {0, 1} or any(span.stride != Fraction(1, scale) for span in spans.values()):
        scene.sees_all("places of the result that are not those of the source")
        return 0
    return max(ceil(max(-span.low, span.high)) for span in spans.values())


def inputs_of(shapes: Mapping[str, Sequence[int]], source: str, *, channels_last: bool) -> dict[str, Tensor]:
    """The inputs of a graph by name: the `source` with its places, and others whose numbers may be anything."""
    height, width = (1, 2) if channels_last else (2, 3)
    return {
        name: source_tensor(shape, height, width) if name == source else of_shape(shape)
        for name, shape in shapes.items()
    }
