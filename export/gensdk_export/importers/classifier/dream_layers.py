"""The tensors of a classifier that it can dream on, and their names.

A layer is the output of a convolution, of an activation, or of what adds or joins such. By default those are taken
that come last at their resolution, and the logits: what goes into the last softmax.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from gensdk_export.importers.classifier.network import OnnxGraph, Shape, Step
from gensdk_export.importers.onnx.reading import OnnxFile
from gensdk_runtime.errors import InputError, did_you_mean

LOGITS = "logits"
MAX_LAYERS = 31
"""What an AscentSpec has room for."""
MAX_DEFAULTS = 8
MAX_NAME = 40
ACTIVATIONS = frozenset(("Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "HardSwish", "Tanh", "Gelu", "Concat"))
GATES = frozenset(("Sigmoid", "HardSigmoid"))
"""Times what goes into them they are activations too: swish."""
FEATURES = frozenset((*ACTIVATIONS, *GATES, "Conv", "BatchNormalization", "Add", "Sum", "Mul", "LRN"))
ENDS = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "Identity", "Cast"))
"""What makes probabilities of logits."""
FAR = 9 * 256
"""Pixels: by how much an image is enlarged to see how far apart the places of its features are."""


@dataclass(frozen=True)
class Layer:
    """A tensor: `channels` wide, its places `stride` pixels apart (0: one for the whole image); `last`: channels
    are its last axis. `resolution`: (height, width) at the model's own size."""

    tensor: str
    channels: int
    stride: int
    last: bool
    resolution: Shape


def logits_of(file: OnnxFile, output: str) -> str:
    """The tensor before the functions that make probabilities."""
    made = {name: node for node in file.model.graph.node for name in node.output}
    while output in made and made[output].op_type in ENDS and made[output].input:
        output = made[output].input[0]
    return output


def layer_names(file: OnnxFile, logits: str) -> dict[str, str]:
    """Tensors by the names of their layers, in the order of the graph: made of those of nodes, short, of letters,
    digits, ``_``, ``-`` and ``.``."""
    named: dict[str, str] = {}
    taken = {LOGITS}
    for node in file.model.graph.node:
        if node.op_type in FEATURES and node.output and node.output[0] not in ("", logits):
            named[_unique(_short(node), taken)] = node.output[0]
    named[LOGITS] = logits
    return named


def chosen_tensors(file: OnnxFile, names: Mapping[str, str], wanted: Sequence[str]) -> dict[str, str]:
    """The layers `wanted`, each called by its name here, or by the file's name of the node or the tensor.

    Raises :class:`InputError` with the nearest name for one that is not there, or for too many.
    """
    tensors = {tensor: name for name, tensor in names.items()}
    nodes = {node.name: tensors[node.output[0]] for node in file.model.graph.node if node.output[:1] and node.name
             and node.output[0] in tensors}  # fmt: skip
    chosen: dict[str, str] = {}
    for given in wanted:
        name = given if given in names else nodes.get(given) or tensors.get(given)
        if name is None:
            told = did_you_mean(given[:80], names)
            some = ", ".join(list(names)[-MAX_DEFAULTS:])
            raise InputError(f"{file.path}: no layer {given[:80]!r}{told or f'; the last ones are {some}'}")
        chosen[name] = names[name]
    if len(chosen) > MAX_LAYERS:
        raise InputError(f"expected at most {MAX_LAYERS} layers, got {len(chosen)}")
    return chosen


def find_layers(graph: OnnxGraph, shape: Shape, sides: tuple[int, int]) -> dict[str, Layer]:
    """All tensors of `graph` that are features at any size, by tensor. `shape`: of the images at the model's own
    size, with height and width on the axes `sides`."""
    own, far = graph.shapes, graph.shapes_at(resized(shape, sides, (FAR, 2 * FAR)))
    found = {}
    for tensor in far:
        layer = _layer(tensor, own[tensor], far[tensor])
        if layer is not None:
            found[tensor] = layer
    return found


def resized(shape: Shape, sides: tuple[int, int], more: tuple[int, int]) -> Shape:
    """`shape` with `more` pixels of height and width."""
    sizes = list(shape)
    for axis, pixels in zip(sides, more, strict=True):
        sizes[axis] += pixels
    return tuple(sizes)


def default_layers(graph: OnnxGraph, names: Mapping[str, str], layers: Mapping[str, Layer]) -> dict[str, str]:
    """The last activation at each resolution that is larger than a place, the one before the deepest first (its
    dreams have both detail and objects in them), then upwards from the deepest; the logits last."""
    last: dict[Shape, str] = {}
    tensors = {tensor: name for name, tensor in names.items()}
    active = _active(graph.steps)
    for kind in (False, True):
        for tensor, layer in layers.items():
            if layer.stride and max(layer.resolution) > 1 and tensor in tensors and (tensor in active) == kind:
                last[layer.resolution] = tensors[tensor]
    deepest = [last[resolution] for resolution in sorted(last)]
    if len(deepest) > 2:
        deepest[:2] = reversed(deepest[:2])
    chosen = {name: names[name] for name in deepest[: MAX_DEFAULTS - 1]}
    return chosen | ({LOGITS: names[LOGITS]} if names[LOGITS] in layers else {})


def _active(steps: Sequence[Step]) -> set[str]:
    """The tensors that activations give."""
    gates = {step.outputs[0]: step.inputs[0] for step in steps if step.op in GATES and step.inputs}
    swish = {
        step.outputs[0]
        for step in steps
        if step.op == "Mul" and any(gates.get(name) in step.inputs for name in step.inputs if name in gates)
    }
    return swish | {step.outputs[0] for step in steps if step.op in ACTIVATIONS}


def _layer(tensor: str, own: Shape, far: Shape) -> Layer | None:
    """What `tensor` is, from its shapes at two sizes; None where it is no features."""
    if len(own) == 2 and own == far:
        return Layer(tensor, own[1], 0, False, (1, 1))
    if len(own) != 4 or len(far) != 4 or min(own) < 1 or own[0] != far[0]:
        return None
    if own == far:
        return Layer(tensor, own[1], 0, False, (1, 1)) if own[2:] == (1, 1) else None
    last = own[3] == far[3]
    height, width, channels = (1, 2, 3) if last else (2, 3, 1)
    more = far[height] - own[height]
    if own[channels] != far[channels] or more < 1 or far[width] - own[width] != 2 * more:
        return None
    stride = FAR // more if FAR % more == 0 else 1
    return Layer(tensor, own[channels], stride, last, (own[height], own[width]))


def _short(node: onnx.NodeProto) -> str:
    """The end of the node's name, or of its output's, in letters that every tool takes."""
    whole = (node.name or node.output[0])[-4 * MAX_NAME :]
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "_", whole.rpartition(":")[0] if re.search(r":\d+$", whole) else whole)
    kept = kept.strip("_.-")[-MAX_NAME:].lstrip("_.-")
    return kept if kept[:1].isalpha() else f"{node.op_type.lower()}_{kept}".rstrip("_")


def _unique(name: str, taken: set[str]) -> str:
    """A name that is not in `taken`, to which it is added; file systems may not tell ``a`` from ``A``."""
    unique, count = name, 1
    while unique.lower() in taken:
        count += 1
        unique = f"{name}-{count}"
    taken.add(unique.lower())
    return unique
