"""The style of a picture as an encoder sees it: what a style transfer model is given beside the image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx.meaning import OnnxOptions, Picture, may_be_image, source_picture
from gensdk_export.importers.onnx.original import as_in_file, open_session, run_output
from gensdk_export.importers.onnx.reading import OnnxFile, Port, read_onnx
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import resize
from gensdk_runtime.media.image_sets import load_image

FREE_SIDE = 256
"""Pixels that a picture is shown to an encoder at, where it takes any size."""


@dataclass(frozen=True)
class Style:
    """`pictures`, image files, and the `encoder` that makes a vector of each: an ONNX file, image to numbers."""

    pictures: tuple[Path, ...]
    encoder: Path


def with_style(file: OnnxFile, options: OnnxOptions, style: Style) -> tuple[OnnxOptions, tuple[Guess, ...]]:
    """`options` with the styles of `style` for the input of `file` that takes one.

    One picture becomes a constant; of several each becomes a class with the picture's name. Raises
    :class:`InputError` where a picture can't be read, the encoder takes no image, or no input fits what it gives.
    """
    if not style.pictures:
        raise InputError("a style encoder needs pictures: give --style IMAGE, once or several times")
    names = tuple(picture.stem for picture in style.pictures)
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(
            f"styles become classes, and two are called {twice[0][:80]!r}; rename one of the pictures"
        )
    encoder = read_onnx(style.encoder)
    guesses: list[Guess] = []
    source = _image_of(encoder, guesses)
    session = open_session(encoder.model.SerializeToString())  # normalizations that train are settled there
    vectors = [_encode(session, encoder, source, picture) for picture in style.pictures]
    port = _style_input(file, options, vectors[0].size)
    guesses = [replace(guess, what=f"style encoder, {guess.what}", option="") for guess in guesses]
    guesses.append(Guess("style", f"input {port.name!r}", f"it takes the encoder's {vectors[0].size} numbers"))
    shape = tuple(axis if isinstance(axis, int) else 1 for axis in port.shape or (vectors[0].size,))
    rows = [vector.reshape(shape) for vector in vectors]
    if len(rows) == 1:
        return replace(options, constants={**options.constants, port.name: rows[0]}), tuple(guesses)
    table = np.stack([row.reshape(shape[1:] if len(shape) > 1 else shape) for row in rows])
    chosen = replace(
        options, constants={**options.constants, port.name: table}, label=port.name, class_names=names
    )
    return chosen, tuple(guesses)


def _image_of(encoder: OnnxFile, guesses: list[Guess]) -> Picture:
    ports = [port for port in encoder.inputs if may_be_image(port)]
    if len(encoder.inputs) != 1 or not ports:
        got = ", ".join(port.text() for port in encoder.inputs)
        raise InputError(f"{encoder.path}: expected a style encoder with an image as its one input, got {got}")
    return source_picture(encoder, ports[0], OnnxOptions(), None, guesses)


def _encode(session: Any, encoder: OnnxFile, source: Picture, path: Path) -> Array:
    """The encoder's first output for a picture, cut to its shape from the middle; float32, any shape."""
    height, width = (axis if isinstance(axis, int) else FREE_SIDE for axis in source.sides)
    image = _cut(load_image(path, source.channels or 3), height, width)
    feeds = {source.port.name: as_in_file(image[None], source)}
    return run_output(session, encoder, encoder.outputs[0].name, feeds).astype(np.float32)


def _cut(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The largest part in the middle with the shape of `height` x `width`, resized to it."""
    rows, columns = image.shape[:2]
    scale = min(rows / height, columns / width)
    tall, wide = max(1, int(height * scale)), max(1, int(width * scale))
    top, left = (rows - tall) // 2, (columns - wide) // 2
    part = image[top : top + tall, left : left + wide]
    return resize(part, height, width)


def _style_input(file: OnnxFile, options: OnnxOptions, size: int) -> Port:
    """The input that nothing was said of and that has so many elements."""
    said = {*options.roles, *options.constants, options.label}
    open_ports = [port for port in file.inputs if port.name not in said and not may_be_image(port)]
    fitting = [
        port
        for port in open_ports
        if port.shape and math.prod(axis for axis in port.shape if isinstance(axis, int)) == size
    ]
    if len(fitting) != 1:
        got = ", ".join(port.text() for port in open_ports) or "none"
        raise InputError(f"{file.path}: expected one input for a style of {size} numbers, got {got}")
    return fitting[0]
