"""Runs somebody else's file to find out what it does not say: the scale of its result, which sizes and batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx_meaning import Meaning, OnnxOptions, Picture
from gensdk_export.importers.onnx_original import OriginalFile, noise_name
from gensdk_export.importers.onnx_reading import OnnxFile
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import ExportError, InputError
from gensdk_runtime.inputs import MAX_SIDE
from gensdk_runtime.noise import Float32

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""So many multiples a side are tried for the smallest image."""
BASE = 64
"""Pixels: sizes are tried from here on."""
RESULT_SIDE = 256
"""Pixels of the result that a model of any size is proved at, where the caller says nothing."""
SAME = 1e-3
"""What two images of a batch may differ by, in parts of the range, from what each is alone."""
MAX_OUTSIDE = 0.25
"""The share of the values outside the range from which on the range is doubted."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Tried:
    """`size` (height, width) of what goes in, `free` of which axes, `multiple` of free ones, which are at least
    `smallest`; `scale` and `channels` of the result; `batch`: whether more than one image goes in at once.
    """

    size: Size
    free: tuple[bool, bool]
    multiple: int
    smallest: int
    scale: int
    channels: int
    batch: bool
    guesses: tuple[Guess, ...]


def try_out(original: OriginalFile, options: OnnxOptions) -> Tried:
    """Finds what `original` does not say. Raises :class:`InputError` for options that don't fit what it does,
    and :class:`ExportError` where it can't be run, or its result is no image of a whole scale.
    """
    meaning, guesses = original.meaning, list[Guess]()
    if meaning.source is None:
        raw = original.run(_feeds(meaning, None, 1))
        batch = _takes_batches(original, None, guesses)
        _doubt(raw, meaning, guesses)
        return Tried((raw.shape[2], raw.shape[3]), (False, False), 1, 1, 1, raw.shape[1], batch, tuple(guesses))
    free = tuple(not isinstance(axis, int) for axis in meaning.source.sides)
    multiple = options.multiple or (_multiple(original, guesses) if any(free) else 1)
    first = _fixed(meaning.source, (BASE // multiple * multiple or multiple,) * 2)
    scale = _scale(original, first, options, guesses)
    size = _size(meaning.source, options, multiple, scale, guesses)
    raw = original.run(_feeds(meaning, size, 1))
    if raw.shape[2:] != (size[0] * scale, size[1] * scale):
        got = f"{raw.shape[2]} x {raw.shape[3]}"
        raise ExportError(f"expected {scale} times {size[0]} x {size[1]} (height x width), the result is {got}")
    smallest = _smallest(original, multiple, scale, guesses) if any(free) else 1
    batch = _takes_batches(original, size, guesses)
    _doubt(raw, meaning, guesses)
    return Tried(
        size, (free[0], free[1]), multiple, min(smallest, *size), scale, raw.shape[1], batch, tuple(guesses)
    )


def rightly_converted(original: OriginalFile, tried: Tried) -> OnnxFile:
    """The file, its operators as they were where converted ones give another result than `original` does."""
    file, meaning = original.file, original.meaning
    if file.kept is None:
        return file
    feeds = _feeds(meaning, None if meaning.source is None else tried.size, 1)
    low, high = meaning.result.value_range
    try:
        converted = OriginalFile(file, meaning, data=file.model.SerializeToString()).run(feeds)
    except ExportError as failure:
        return file.unconverted(f"converted they fail: {failure}")
    difference = float(np.abs(converted - original.run(feeds)).max()) / (high - low) * 2
    return file if difference <= SAME else file.unconverted(f"converted they would differ by {difference:.2g}")


def _feeds(meaning: Meaning, size: Size | None, batch: int) -> dict[str, Array]:
    """Random inputs as the bundle's graph would take them."""
    generator = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    if meaning.source is not None and size is not None:
        low, high = meaning.source.value_range
        shape = (batch, meaning.source.channels or 3, *size)
        feeds["source"] = (low + (high - low) * generator.random(shape)).astype(np.float32)
    for noise in meaning.noises:
        drawn = generator.random if noise.distribution == "uniform" else generator.standard_normal
        rest = tuple(axis if isinstance(axis, int) else 1 for axis in (noise.port.shape or ())[1:])
        feeds[noise_name(noise.port.name)] = drawn((batch, *rest)).astype(np.float32)
    if meaning.label is not None:
        feeds["label"] = np.arange(batch, dtype=np.int64) % meaning.label.classes
    return feeds


def _fixed(source: Picture, size: Size) -> Size:
    """`size` with the sides that the file fixes."""
    height, width = (
        axis if isinstance(axis, int) else side for axis, side in zip(source.sides, size, strict=True)
    )
    if max(height, width) > MAX_SIDE:
        raise InputError(f"expected images of at most {MAX_SIDE} pixels a side, the file wants {height} x {width}")
    return height, width


def _multiple(original: OriginalFile, guesses: list[Guess]) -> int:
    """The smallest of :data:`MULTIPLES` at which sizes come back whole."""
    source = original.meaning.source
    assert source is not None  # noqa: S101 - asked only then
    last: ExportError | None = None
    for multiple in MULTIPLES:
        base = max(BASE, multiple)
        sizes = [_fixed(source, (base + up * multiple, base + down * multiple)) for up, down in ((1, 3), (2, 1))]
        try:
            shapes = [(size, original.run(_feeds(original.meaning, size, 1)).shape[2:]) for size in sizes]
        except ExportError as failure:
            last = failure
            continue
        ratios = {(out[0] / size[0], out[1] / size[1]) for size, out in shapes}
        if len(ratios) == 1 and len(set(ratios.pop())) == 1:
            reason = "the smallest at which every size that was tried comes back"
            guesses.append(Guess("multiple", str(multiple), reason, "--multiple"))
            return multiple
    if last is not None:
        raise last
    raise ExportError("no multiple of height and width gives a result of the same shape; give --size and --scale")


def _smallest(original: OriginalFile, multiple: int, scale: int, guesses: list[Guess]) -> int:
    """From which size on the model runs: mirrored edges, for one, need more than a pixel to mirror."""
    source = original.meaning.source
    assert source is not None  # noqa: S101 - asked only then
    for units in UNITS:
        side = units * multiple
        size = _fixed(source, (side, side))
        try:
            out = original.run(_feeds(original.meaning, size, 1)).shape[2:]
        except ExportError:
            continue
        if out == (size[0] * scale, size[1] * scale):
            if units > 1:
                guesses.append(Guess("smallest size", str(side), "the smallest that was tried and comes back"))
            return side
    return max(BASE, multiple)


def _scale(original: OriginalFile, size: Size, options: OnnxOptions, guesses: list[Guess]) -> int:
    out: tuple[int, ...] = original.run(_feeds(original.meaning, size, 1)).shape[2:]
    scale = out[0] // size[0]
    if scale < 1 or out != (size[0] * scale, size[1] * scale):
        raise ExportError(
            f"expected a result of one or more times the size, got {out[0]} x {out[1]} of {size[0]} x {size[1]}"
        )
    if options.scale is not None and options.scale != scale:
        raise InputError(f"expected scale {scale}, which is what the model does, got {options.scale}")
    if options.scale is None:
        guesses.append(Guess("scale", str(scale), f"{size[0]} x {size[1]} becomes {out[0]} x {out[1]}"))
    return int(scale)


def _size(source: Picture, options: OnnxOptions, multiple: int, scale: int, guesses: list[Guess]) -> Size:
    """(height, width) to prove and measure at."""
    side = max(1, RESULT_SIDE // scale // multiple) * multiple
    size = _fixed(source, options.size or (side, side))
    if options.size is not None and size != options.size:
        raise InputError(f"expected --size {size[0]}x{size[1]}, which the file fixes, got {options.size}")
    for axis, length in zip(source.sides, size, strict=True):
        if not isinstance(axis, int) and length % multiple:
            raise InputError(f"expected a size of multiples of {multiple}, got {size[0]} x {size[1]}")
    if options.size is None and any(not isinstance(axis, int) for axis in source.sides):
        guesses.append(Guess("size to prove it at", f"{size[0]} x {size[1]}", "it takes any", "--size"))
    return size


def _takes_batches(original: OriginalFile, size: Size | None, guesses: list[Guess]) -> bool:
    """Whether two images at once come out as each alone."""
    meaning = original.meaning
    pictures = [picture.port for picture in (meaning.source, meaning.result) if picture is not None]
    ports = [*pictures, *(noise.port for noise in meaning.noises)]
    fixed = {axis for port in ports for axis in (port.shape or ())[:1] if isinstance(axis, int)}
    if fixed - {1}:
        raise ExportError(f"expected a batch of one or of any size, the file fixes it to {max(fixed)}")
    if original.file.alone:
        guesses.append(Guess("largest batch", "1", "images of one batch would change each other"))
        return False
    if fixed or (meaning.label is not None and not meaning.label.batched):
        guesses.append(Guess("largest batch", "1", "the file fixes it"))
        return False
    both = _feeds(meaning, size, 2)
    try:
        together = original.run(both)
        apart = np.concatenate(
            [original.run({name: array[row : row + 1] for name, array in both.items()}) for row in (0, 1)]
        )
    except ExportError:
        guesses.append(Guess("largest batch", "1", "two images at once can't be run"))
        return False
    low, high = meaning.result.value_range
    if together.shape != apart.shape or not np.abs(together - apart).max() <= SAME * (high - low):
        guesses.append(Guess("largest batch", "1", "images of one batch change each other"))
        return False
    return True


def _doubt(raw: Float32, meaning: Meaning, guesses: list[Guess]) -> None:
    """Says so where much of the result lies outside its range."""
    low, high = meaning.result.value_range
    slack = 0.1 * (high - low)
    outside = float(((raw < low - slack) | (raw > high + slack)).mean())
    if outside > MAX_OUTSIDE:
        reason = (
            f"{outside:.0%} of the values lie outside and are clipped, from {raw.min():.3g} to {raw.max():.3g}"
        )
        guesses.append(Guess("doubtful range of the result", f"{low:g} to {high:g}", reason, "--output-range"))
