"""The meaning of a third-party graph's inputs and output: given by options, else guessed from the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx.extra_inputs import Label, constant_of, label_of
from gensdk_export.importers.onnx.kinds import refuse_denoiser, what_it_is
from gensdk_export.importers.onnx.layout import Looks, looks_of
from gensdk_export.importers.onnx.ranges import Found, Range, bounded_by, taken_by
from gensdk_export.importers.onnx.reading import OnnxFile, Port
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import InputError, did_you_mean

Layout = Literal["nchw", "nhwc"]
Kind = Literal["translation", "generator"]
Role = Literal["image", "noise", "uniform", "label", "constant"]
ROLES: tuple[str, ...] = get_args(Role)
COLOURS = (1, 3, 4)
"""Numbers of channels by which an axis is taken for that of the channels."""
UNIT: Range = (0.0, 1.0)
RESULT_RANGE = "range of the result"
AS_OF_THE_SOURCE = "as that of the source"
USUAL_OF_GENERATORS = "the usual one of generators"


@dataclass(frozen=True)
class OnnxOptions:
    """What the caller knows about a file; what is None or empty is guessed.

    `kind`: a model that translates images, or one that makes them of noise. `roles` by input; `output`: the one
    that holds images. `source_range`, `result_range`: (lowest, highest) value of images that go in and come out;
    `ranges`: of further images that go in, by input.
    `layout` of images; `channels` of those that go in. `size`: (height, width) to prove and measure a model of any
    size at; `multiple`: what its sizes are multiples of; `scale`: of the result; `margin`: pixels around a place
    that its result depends on. `constants`: arrays for inputs; for the `label` input, a table with a row for each
    class. `classes`: how many, of a label that is a number; `class_names` of any. `uint8`: images go in and come
    out as bytes.
    """

    kind: Kind | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    output: str | None = None
    source_range: Range | None = None
    result_range: Range | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    layout: Layout | None = None
    channels: int | None = None
    size: tuple[int, int] | None = None
    multiple: int | None = None
    scale: int | None = None
    margin: int = 32
    constants: Mapping[str, Array] = field(default_factory=dict)
    label: str | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    uint8: bool = False


@dataclass(frozen=True)
class Picture:
    """An input or output that holds images: [B, C, H, W] or [B, H, W, C] in `value_range`.

    `bounded`: the graph's last operator keeps the range, so nothing is left to clip. `border`: pixels on each side
    that its convolutions cut off, and that are mirrored onto what goes in.
    """

    port: Port
    layout: Layout
    value_range: Range
    channels: int | None = None
    bounded: bool = False
    border: int = 0

    @property
    def sides(self) -> tuple[int | str | None, int | str | None]:
        """The axes of height and width, as the file has them."""
        shape = self.port.shape or (None,) * 4
        return (shape[2], shape[3]) if self.layout == "nchw" else (shape[1], shape[2])


@dataclass(frozen=True)
class Noise:
    """An input that is drawn: [B, ...] from the normal or the uniform distribution."""

    port: Port
    distribution: Literal["normal", "uniform"]


@dataclass(frozen=True)
class Meaning:
    """All inputs and the one output that counts. `source` is None for a model that makes images of noise.

    `more` images go in with it: their channels follow those of `source` in the one image that the bundle takes.
    """

    source: Picture | None
    noises: tuple[Noise, ...]
    label: Label | None
    constants: Mapping[str, Array]
    result: Picture
    guesses: tuple[Guess, ...]
    more: tuple[Picture, ...] = ()

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The images that go in, in the order of their channels."""
        return () if self.source is None else (self.source, *self.more)

    @property
    def channels(self) -> int:
        """Those of all images that go in."""
        return sum(picture.channels or 3 for picture in self.pictures)


def understand(file: OnnxFile, options: OnnxOptions) -> Meaning:
    """What the tensors of `file` mean. Raises :class:`InputError` where that can be neither read nor guessed."""
    guesses: list[Guess] = []
    ports = {port.name: port for port in file.inputs}
    _check_names(options, ports, file)
    guesses += refuse_denoiser(file, frozenset((*options.roles, *options.constants, options.label or "")))
    result_port = _result_port(file, options, guesses)
    roles = _roles(ports, options, guesses)
    images = [ports[name] for name, role in roles.items() if role == "image"]
    found = bounded_by(file.model, result_port)
    source = source_picture(file, images[0], options, found, guesses) if images else None
    more = tuple(_beside(file, source, port, options, guesses) for port in images[1:]) if source else ()
    result_range = _result_range(options, found, source, guesses)
    bounded = found is not None and found.exact and options.result_range is None
    layout = _result_layout(result_port, options, source, guesses)
    result = Picture(result_port, layout, result_range, bounded=bounded)
    noises = tuple(
        Noise(ports[name], "uniform" if role == "uniform" else "normal")
        for name, role in roles.items()
        if role in ("noise", "uniform")
    )
    labels = [
        label_of(ports[name], options.constants.get(name), options.classes)
        for name, role in roles.items()
        if role == "label"
    ]
    if len(labels) > 1:
        raise InputError(f"expected one label, got {', '.join(label.port.text() for label in labels)}")
    constants = {
        name: constant_of(ports[name], options.constants[name])
        for name, role in roles.items()
        if role == "constant"
    }
    if source is None and not noises:
        raise InputError("expected an input that is an image or noise; say which with --input NAME=ROLE")
    label = labels[0] if labels else None
    return Meaning(source, noises, label, constants, result, tuple(guesses), more)


def source_picture(
    file: OnnxFile, port: Port, options: OnnxOptions, result: Found | None, guesses: list[Guess]
) -> Picture:
    """How the input `port` holds an image; `result`: the range of the result, where it is known."""
    looks = looks_of(file.model, port.name)
    layout = _layout(port, options, guesses, looks)
    low_high = _source_range(file, port, options, result, guesses)
    known = looks.channels if looks is not None and looks.layout == layout else None
    channels = options.channels or _channels(port, layout, known, guesses)
    if channels == 1:
        reason = "it takes one channel, so colour photographs become grey before they go in"
        guesses.append(Guess("colours", "none", reason))
    return Picture(port, layout, low_high, channels)


def _beside(file: OnnxFile, source: Picture, port: Port, options: OnnxOptions, guesses: list[Guess]) -> Picture:
    """One more image: a mask, or a reference, of the size of `source`."""
    looks = looks_of(file.model, port.name)
    layout = _layout(port, options, guesses, looks)
    channels = _channels(port, layout, looks.channels if looks is not None else None, guesses)
    reason = "as that of the first image"
    low_high = source.value_range
    if port.dtype == "uint8":
        low_high, reason = (0.0, 255.0), "it takes bytes"
    elif channels == 1 and source.channels != 1:
        low_high, reason = UNIT, "one channel, so a mask"
    if port.name in options.ranges:
        low_high = options.ranges[port.name]
    else:
        guesses.append(Guess(f"range of {port.name!r}", _text(low_high), reason, "--input-range"))
    picture = Picture(port, layout, low_high, channels)
    if picture.sides != source.sides and any(isinstance(axis, int) for axis in (*picture.sides, *source.sides)):
        raise InputError(
            f"expected images of one size, got {source.port.text()} and {port.text()}; give one of them as "
            "--constant NAME=FILE.npy of its shape, or several as classes with --label NAME too"
        )
    last = (source.channels or 3) + channels
    reason = f"its channels follow those of {source.port.name!r}, in one array [H, W, {last} or more]"
    guesses.append(Guess("image beside it", port.text(), reason, "--constant"))
    return picture


def _check_names(options: OnnxOptions, ports: Mapping[str, Port], file: OnnxFile) -> None:
    named = [*options.roles, *options.constants, *options.ranges, *([options.label] if options.label else [])]
    for name in named:
        if name not in ports:
            raise InputError(f"{file.path}: no input {name[:80]!r}{did_you_mean(name[:80], ports)}")
    for name, role in options.roles.items():
        if role not in ROLES:
            raise InputError(f"no role {role!r} for input {name!r}{did_you_mean(str(role), ROLES)}")
        if role == "constant" and name not in options.constants:
            raise InputError(f"input {name!r} is to be constant: give it --constant {name}=FILE.npy")
    if options.class_names is not None and options.label is None and "label" not in options.roles.values():
        raise InputError(
            f"{file.path}: class_names name the classes of a label; say which input it is: --label NAME"
        )


def _roles(ports: Mapping[str, Port], options: OnnxOptions, guesses: list[Guess]) -> dict[str, Role]:
    """As said, or by shape: four axes are an image; where nothing is an image, other floats are noise."""
    roles: dict[str, Role] = dict(options.roles)
    roles |= dict.fromkeys(options.constants, "constant")
    roles |= {options.label: "label"} if options.label else {}
    open_ports = [port for name, port in ports.items() if name not in roles]
    if options.kind != "generator" and "image" not in roles.values():
        for port in (port for port in open_ports if may_be_image(port)):
            roles[port.name] = "image"
            guesses.append(Guess("image", port.text(), "its shape", "--input"))
    translates = "image" in roles.values() or options.kind == "translation"
    for port in (port for port in open_ports if port.name not in roles):
        if translates or np.dtype(port.dtype).kind != "f" or len(port.shape or ()) < 2:
            raise InputError(
                f"input {port.text()} is neither image nor noise by its shape; give --constant "
                f"{port.name}=FILE.npy, --label {port.name}, or --input {port.name}=ROLE"
            )
        roles[port.name] = "noise"
        guesses.append(Guess("noise", port.text(), "no input is an image", "--input"))
    return {name: roles[name] for name in ports}


def may_be_image(port: Port) -> bool:
    """Four axes, with channels at one end, and more than a row or a column."""
    shape = port.shape or (None,) * 4
    if len(shape) != 4:
        return False
    sides = (
        (shape[1], shape[2:]),
        (shape[3], shape[1:3]),
    )  # names of axes, as exporters make them up, tell nothing
    return any(
        (not isinstance(channels, int) or channels in COLOURS) and 1 not in spatial for channels, spatial in sides
    )


def _result_port(file: OnnxFile, options: OnnxOptions, guesses: list[Guess]) -> Port:
    outputs = {port.name: port for port in file.outputs}
    if options.output is not None:
        if options.output not in outputs:
            raise InputError(f"{file.path}: no output {options.output!r}{did_you_mean(options.output, outputs)}")
        return outputs[options.output]
    fitting = [port for port in file.outputs if may_be_image(port)]
    if not fitting:
        got = ", ".join(port.text() for port in file.outputs)
        raise InputError(
            f"{file.path}: expected an output that holds images, got {got}; "
            f"{what_it_is(file.inputs, file.outputs)}"
        )
    if len(file.outputs) > 1:
        guesses.append(Guess("output", repr(fitting[0].name), "the first with four axes", "--result"))
    return fitting[0]


def _layout(port: Port, options: OnnxOptions, guesses: list[Guess], looks: Looks | None = None) -> Layout:
    if options.layout is not None:
        return options.layout
    shape = port.shape or ()
    first, last = (len(shape) == 4 and shape[axis] in COLOURS for axis in (1, 3))
    if first == last and looks is not None:
        guesses.append(Guess("layout", looks.layout, "what its first convolution takes", "--layout"))
        return looks.layout
    if first == last:
        raise InputError(f"the layout of {port.text()} can't be told from its shape; give --layout nchw or nhwc")
    layout: Layout = "nchw" if first else "nhwc"
    guesses.append(Guess("layout", layout, f"{port.text()}", "--layout"))
    return layout


def _result_layout(port: Port, options: OnnxOptions, source: Picture | None, guesses: list[Guess]) -> Layout:
    """Its own where the shape tells, else that of the image that goes in."""
    shape = port.shape or ()
    first, last = (len(shape) == 4 and shape[axis] in COLOURS for axis in (1, 3))
    if first != last:
        return "nchw" if first else "nhwc"
    return source.layout if source is not None else _layout(port, options, guesses)


def _channels(port: Port, layout: Layout, known: int | None, guesses: list[Guess]) -> int:
    shape = port.shape or (None,) * 4
    axis = shape[1 if layout == "nchw" else 3]
    if isinstance(axis, int):
        return axis
    if known is not None:
        guesses.append(Guess("channels", str(known), "what its first convolution takes", "--channels"))
        return known
    guesses.append(Guess("channels", "3", "the file does not say how many", "--channels"))
    return 3


def _source_range(
    file: OnnxFile, port: Port, options: OnnxOptions, result: Found | None, guesses: list[Guess]
) -> Range:
    if options.source_range is not None:
        return options.source_range
    found = taken_by(file.model, port)
    low_high, reason = UNIT, "nothing in the file tells"
    if found is not None:
        low_high, reason = found.range, found.reason
    elif options.result_range is not None:
        low_high, reason = options.result_range, "as that of the result"
    elif result is not None:
        low_high, reason = result.range, "as that of the result"
    guesses.append(Guess("range of the source", _text(low_high), reason, "--range"))
    return low_high


def _result_range(
    options: OnnxOptions, found: Found | None, source: Picture | None, guesses: list[Guess]
) -> Range:
    if options.result_range is not None:
        return options.result_range
    low_high, reason = (-1.0, 1.0), USUAL_OF_GENERATORS
    if found is not None:
        low_high, reason = found.range, found.reason
    elif source is not None:
        low_high, reason = source.value_range, AS_OF_THE_SOURCE
    guesses.append(Guess(RESULT_RANGE, _text(low_high), reason, "--output-range"))
    return low_high


def _text(low_high: Range) -> str:
    return f"{low_high[0]:g} to {low_high[1]:g}"
