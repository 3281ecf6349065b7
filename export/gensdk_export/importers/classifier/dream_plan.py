"""Reads a classifier from an ONNX file: its preprocessing, the layers that it can dream on, and how they run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gensdk_export.importers.classifier.dream_layers import (
    LOGITS,
    Layer,
    chosen_tensors,
    default_layers,
    find_layers,
    layer_names,
    logits_of,
    resized,
)
from gensdk_export.importers.classifier.feature_proof import Sizes, prove_features
from gensdk_export.importers.classifier.network import OnnxGraph, Shape, read_graph
from gensdk_export.importers.classifier.preprocessing import Features, Preprocessing
from gensdk_export.importers.import_report import Guess, bundle_name
from gensdk_export.importers.onnx.meaning import OnnxOptions, Picture, may_be_image, source_picture
from gensdk_export.importers.onnx.reading import OnnxFile, Port, read_onnx
from gensdk_runtime.errors import ExportError, InputError, did_you_mean
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.settings import AscentSettings
from gensdk_training.graphs.dreaming import DreamLayer, dream_plan
from gensdk_training.plan import ExportPlan

FAMILY = "imported"
SIDE = 224
"""Pixels of the images that a model of any size is read at: what most classifiers were trained at."""
PROVED_UNITS = 4
"""So many times the stride of the deepest layer are the sides of the images that gradients are proved at."""
UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""So many strides are tried for the smallest image."""
DEFAULTS = AscentSettings(optimizer="sgd", learning_rate=0.015, num_inference_steps=10, jitter=16)


@dataclass(frozen=True)
class DreamOptions:
    """What the caller knows about a classifier beside :class:`OnnxOptions`, of which `output`, `source_range`,
    `layout`, `channels`, `size` and `margin` count.

    `layers` to dream on, by name; empty: the last at each resolution, and the logits. `mean` and `std` of each
    channel, red first, in the unit of `source_range`: the model is given ``(image - mean) / std``. `bgr`: blue
    comes first.
    """

    layers: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool = False


@dataclass(frozen=True)
class Chosen:
    """The layers by name, at what multiples of pixels they work, and from which size on."""

    layers: Mapping[str, Layer]
    multiple: int
    smallest: int
    guesses: tuple[Guess, ...]


def classifier_plan(
    path: Path | str,
    options: OnnxOptions | None = None,
    dream: DreamOptions | None = None,
    *,
    atol: float = 1e-4,
    on_stage: Callable[[str], None] | None = None,
) -> tuple[ExportPlan, Provenance, tuple[Guess, ...]]:
    """What ``import_classifier`` exports, its features proved equal to the file's: the plan, where it came from,
    and what was taken for granted."""
    options, dream, say = options or OnnxOptions(), dream or DreamOptions(), on_stage or (lambda _: None)
    say("reading the file")
    file = read_onnx(Path(path))
    guesses: list[Guess] = []
    picture = _picture(file, options, guesses)
    preprocessing = Preprocessing.of(picture, dream.mean, dream.std, bgr=dream.bgr)
    guesses += preprocessing.guesses(dream.mean is None and dream.std is None)
    shape = _shape(picture, options, guesses)
    graph, chosen = _choose(file, picture, shape, options, dream)
    say("running it in PyTorch and in ONNX Runtime")
    networks = {
        name: Features(preprocessing, graph.below(layer.tensor), last=layer.last, flat=not layer.stride)
        for name, layer in chosen.layers.items()
    }
    prove_features(file, preprocessing, networks, _sizes(graph, chosen, shape, picture), atol=atol)
    plan = _plan(file, picture, chosen, networks, options)
    provenance = Provenance(config=_config(file, preprocessing, chosen))
    return plan, provenance, (*file.guesses, *guesses, *chosen.guesses)


def _picture(file: OnnxFile, options: OnnxOptions, guesses: list[Guess]) -> Picture:
    """How the one input holds images."""
    got = ", ".join(port.text() for port in file.inputs[:8])
    if len(file.inputs) != 1 or not may_be_image(file.inputs[0]):
        raise InputError(
            f"{file.path}: expected a classifier, with one input that is an image, got {got or 'none'}; leave "
            "--dream out where it is another model"
        )
    port = file.inputs[0]
    if port.dtype != "float32":
        raise InputError(f"{file.path}: expected an image as float32, got {got}; export the classifier again")
    if port.shape is not None and isinstance(port.shape[0], int) and port.shape[0] > 1:
        raise ExportError(f"expected a batch of one or of any size, the file fixes it to {port.shape[0]}")
    return source_picture(file, port, options, None, guesses)


def _shape(picture: Picture, options: OnnxOptions, guesses: list[Guess]) -> Shape:
    """Of one image as the file takes it, at the size that it was made for."""
    wanted = options.size or (SIDE, SIDE)
    height, width = (
        axis if isinstance(axis, int) else side for axis, side in zip(picture.sides, wanted, strict=True)
    )
    if (
        (height, width) == (SIDE, SIDE)
        and options.size is None
        and not all(isinstance(axis, int) for axis in picture.sides)
    ):
        guesses.append(Guess("size that it was made for", f"{SIDE} x {SIDE}", "the usual one", "--size"))
    channels = picture.channels or 3
    return (1, channels, height, width) if picture.layout == "nchw" else (1, height, width, channels)


def sides_of(picture: Picture) -> tuple[int, int]:
    """The axes of height and width."""
    return (2, 3) if picture.layout == "nchw" else (1, 2)


def _output(file: OnnxFile, options: OnnxOptions) -> Port:
    outputs = {port.name: port for port in file.outputs}
    if options.output is not None and options.output not in outputs:
        raise InputError(f"{file.path}: no output {options.output[:80]!r}{did_you_mean(options.output, outputs)}")
    return file.outputs[0] if options.output is None else outputs[options.output]


def _sizes(graph: OnnxGraph, chosen: Chosen, shape: Shape, picture: Picture) -> Sizes:
    """What is pooled over the whole map at one size is not at another, in the file as it stands."""
    axes = sides_of(picture)
    larger = resized(shape, axes, (chosen.multiple, 2 * chosen.multiple))
    free = [name for name, layer in chosen.layers.items() if layer.stride and layer.tensor not in graph.pooled]
    return Sizes((shape[axes[0]], shape[axes[1]]), (larger[axes[0]], larger[axes[1]]), free)


def _choose(
    file: OnnxFile, picture: Picture, shape: Shape, options: OnnxOptions, dream: DreamOptions
) -> tuple[OnnxGraph, Chosen]:
    """The graph up to the layers that were asked for, or up to the result and the usual ones."""
    output, sides = _output(file, options).name, sides_of(picture)
    names = layer_names(file, logits_of(file, output))
    wanted = chosen_tensors(file, names, dream.layers)
    graph = read_graph(file, picture.port.name, shape, [*wanted.values()] or [output])
    if not wanted:
        _check_result(file, graph.shapes[output], shape, sides)
    found = find_layers(graph, shape, sides)
    for name, tensor in wanted.items():
        if tensor not in found:
            got = list(graph.shapes.get(tensor, ()))
            raise ExportError(
                f"{file.path}: layer {name!r} is {got} of images {list(shape)} and can't be made of others, or is "
                "no map of features; a dream takes any size: choose one below it"
            )
    chosen = wanted or default_layers(graph, names, found)
    layers = {name: found[tensor] for name, tensor in chosen.items()}
    if not layers:
        raise ExportError(f"{file.path}: expected a classifier with convolutions, found no map of features in it")
    guesses = _left_out(graph, names, layers, shape) if not wanted else []
    reasons = "the last activation at each resolution, and the logits"
    if not wanted:
        guesses.append(Guess("layers", ", ".join(layers), reasons, "--layer"))
    if graph.pooled.intersection(layer.tensor for layer in layers.values()):
        told = f"the window is the whole map at {shape[sides[0]]} x {shape[sides[1]]}"
        guesses.append(Guess("last pooling", "over the whole map, at any size", told))
    steps = {name for step in graph.steps_below(chosen.values()) for name in step.outputs}
    multiple = math.lcm(*(layer.stride for tensor, layer in found.items() if layer.stride and tensor in steps))

    def shapes_of(height: int, width: int) -> Mapping[str, Shape]:
        more = (height * multiple - shape[sides[0]], width * multiple - shape[sides[1]])
        return graph.shapes_at(resized(shape, sides, more))

    units = _smallest(shapes_of, layers)
    if units is None:
        raise ExportError(
            f"{file.path}: these layers can't be made of images of {UNITS[-1] * multiple} pixels; choose others"
        )
    return graph, Chosen(layers, multiple, units * multiple, tuple(guesses))


def _check_result(file: OnnxFile, result: Shape, shape: Shape, sides: tuple[int, int]) -> None:
    """No classifier gives an image as large as the one that goes in."""
    if len(result) == 4 and max(result[axis] for axis in (1, 2, 3)) >= min(shape[axis] for axis in sides):
        raise ExportError(
            f"{file.path}: expected a classifier, its result {list(result)} of images {list(shape)} is an image; "
            "leave --dream out"
        )


def _left_out(
    graph: OnnxGraph, names: Mapping[str, str], layers: Mapping[str, Layer], shape: Shape
) -> list[Guess]:
    if LOGITS in layers:
        return []
    got = list(graph.shapes.get(names[LOGITS], ()))
    return [Guess("left out", LOGITS, f"{got} of images {list(shape)} alone; a dream takes any size")]


def _smallest(shapes_of: Callable[[int, int], Mapping[str, Shape]], layers: Mapping[str, Layer]) -> int | None:
    """From how many units on all layers can be made of every larger image that is tried; None: of none.

    `shapes_of`: the shapes of all tensors, of images so many units high and wide.
    """

    def fits(height: int, width: int) -> bool:
        found = shapes_of(height, width)
        return all(min(found.get(layer.tensor, (0,))) > 0 for layer in layers.values())

    last = None
    for units in reversed(UNITS):
        if not fits(units, units) or not fits(units, units + 1):
            break
        last = units
    return last


def _plan(
    file: OnnxFile, picture: Picture, chosen: Chosen, networks: Mapping[str, Features], options: OnnxOptions
) -> ExportPlan:
    side = max(chosen.smallest, PROVED_UNITS * chosen.multiple)
    height, width = options.size if options.size and not any(picture.sides) else (side, side)
    height, width = (-(-size // chosen.multiple) * chosen.multiple for size in (height, width))
    channels = picture.channels or 3
    source = SourceSpec.from_dict(
        {
            "channels": channels,
            "height": height,
            "width": width,
            "multiple": chosen.multiple,
            "smallest": chosen.smallest,
            "margin": max(options.margin, 2 * chosen.multiple),
        },
        what=str(file.path),
        error=ExportError,
    )
    return dream_plan(
        bundle_name(file.path.stem),
        FAMILY,
        {name: DreamLayer(networks[name], layer.channels) for name, layer in chosen.layers.items()},
        image=ImageSpec(channels=channels, height=height, width=width),
        source=source,
        defaults=DEFAULTS,
    )


def _config(file: OnnxFile, preprocessing: Preprocessing, chosen: Chosen) -> dict[str, object]:
    layers = {name: layer.tensor[:200] for name, layer in chosen.layers.items()}
    return {"imported_from": file.path.name, "opset": file.opset, "layers": layers, **preprocessing.to_dict()}
