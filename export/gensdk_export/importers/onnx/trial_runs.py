"""Runs a third-party file to find out what it does not say: the scale of its result, and its sizes and batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx.meaning import (
    AS_OF_THE_SOURCE,
    RESULT_RANGE,
    USUAL_OF_GENERATORS,
    Meaning,
    OnnxOptions,
    Picture,
)
from gensdk_export.importers.onnx.original import OriginalFile, TooMuchMemoryError, noise_name
from gensdk_export.importers.onnx.reading import OnnxFile
from gensdk_export.importers.onnx.trial_sizes import PROVED_AT, Size, Sizes, find_sizes
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import ExportError
from gensdk_runtime.noise import Float32

SAME = 1e-3
"""What two images of a batch may differ by, in parts of the range, from what each is alone."""
MAX_OUTSIDE = 0.25
"""The share of the values outside the range from which on the range is doubted."""
TRIALS = 4
"""Samples that are drawn to see what range they take."""
BELOW, ABOVE = -0.1, 1.25
"""What is lower, or larger in size, speaks against a range of 0 to 1, or of -1 to 1."""
SMALL = 3.0
"""Values of which none is larger in size are not meant for a range of 0 to 255."""
FEW = 0.02
"""The share of values that says nothing yet."""


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
        seen = np.concatenate([original.run(_feeds(meaning, None, 1, seed)) for seed in range(TRIALS)])
        original.meaning = _settled(meaning, seen, options)
        batch = _takes_batches(original, None, guesses)
        _doubt(seen, original.meaning, guesses)
        size = (seen.shape[2], seen.shape[3])
        return Tried(size, (False, False), 1, 1, 1, seen.shape[1], batch, tuple(guesses))

    def run(source: Picture, size: Size) -> Size:
        original.meaning = replace(meaning, source=source)
        shape = original.run(_feeds(meaning, size, 1)).shape
        return shape[2], shape[3]

    found = find_sizes(meaning.source, run, options, guesses)
    original.meaning = meaning = replace(meaning, source=found.source)
    found, raw = _within_memory(original, found, options, guesses)
    expected = (found.size[0] * found.scale, found.size[1] * found.scale)
    if raw.shape[2:] != expected:
        got = f"{raw.shape[2]} x {raw.shape[3]}"
        what = f"{found.scale} times {found.size[0]} x {found.size[1]}"
        raise ExportError(f"expected {what} (height x width), the result is {got}")
    original.meaning = meaning = _settled(meaning, raw, options)
    batch = _takes_batches(original, found.size, guesses)
    _doubt(raw, meaning, guesses)
    return Tried(
        found.size, found.free, found.multiple, found.smallest, found.scale, raw.shape[1], batch, tuple(guesses)
    )


def _within_memory(
    original: OriginalFile, found: Sizes, options: OnnxOptions, guesses: list[Guess]
) -> tuple[Sizes, Float32]:
    """The sizes, and what comes out at the one to prove the model at: a smaller one where memory forbids it."""
    while True:
        try:
            return found, original.run(_feeds(original.meaning, found.size, 1))
        except TooMuchMemoryError:
            smaller = found.smaller()
            if options.size is not None or smaller == found.size:
                raise
            found = replace(found, size=smaller)
            reason = "a larger one takes more memory than is allowed"
            told = Guess(PROVED_AT, f"{smaller[0]} x {smaller[1]}", reason, "--size")
            guesses[:] = [told if guess.what == PROVED_AT else guess for guess in guesses]


def _settled(meaning: Meaning, seen: Float32, options: OnnxOptions) -> Meaning:
    """`meaning` with the range that the samples `seen` show, where nothing in the file tells it."""
    guess = next((each for each in meaning.guesses if each.what == RESULT_RANGE), None)
    if options.result_range is not None or guess is None:
        return meaning
    small = meaning.result.value_range == (0.0, 255.0) and np.abs(seen).max() < SMALL
    if guess.reason != USUAL_OF_GENERATORS and not (guess.reason == AS_OF_THE_SOURCE and small):
        return meaning
    low_high: tuple[float, float] = (0.0, 1.0)
    if float((np.abs(seen) > ABOVE).mean()) > MAX_OUTSIDE and seen.min() > -8 and 8 < seen.max() < 400:
        low_high = (0.0, 255.0)
    elif float((seen < BELOW).mean()) > FEW:
        low_high = (-1.0, 1.0)
    what = f"{len(seen)} samples lie" if meaning.source is None else "the values of a trial lie"
    reason = f"{what} in {seen.min():.2g} to {seen.max():.2g}"
    told = replace(guess, value=f"{low_high[0]:g} to {low_high[1]:g}", reason=reason)
    guesses = tuple(told if each is guess else each for each in meaning.guesses)
    return replace(meaning, result=replace(meaning.result, value_range=low_high), guesses=guesses)


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


def _feeds(meaning: Meaning, size: Size | None, batch: int, seed: int = 0) -> dict[str, Array]:
    """Random inputs as the bundle's graph would take them; each further image darker than the one before."""
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    if meaning.source is not None and size is not None:
        low, high = meaning.source.value_range
        shape = (batch, meaning.channels, *size)
        shade = 0.5 ** np.arange(batch).reshape(-1, 1, 1, 1)
        feeds["source"] = (low + (high - low) * shade * generator.random(shape)).astype(np.float32)
    for noise in meaning.noises:
        drawn = generator.random if noise.distribution == "uniform" else generator.standard_normal
        rest = tuple(axis if isinstance(axis, int) else 1 for axis in (noise.port.shape or ())[1:])
        feeds[noise_name(noise.port.name)] = drawn((batch, *rest)).astype(np.float32)
    if meaning.label is not None:
        feeds["label"] = np.arange(batch, dtype=np.int64) % meaning.label.classes
    return feeds


def _takes_batches(original: OriginalFile, size: Size | None, guesses: list[Guess]) -> bool:
    """True if two images at once come out as each alone."""
    meaning = original.meaning
    pictures = [picture.port for picture in (*meaning.pictures, meaning.result)]
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
    """Adds a remark if much of the result lies outside its range."""
    low, high = meaning.result.value_range
    slack = 0.1 * (high - low)
    outside = float(((raw < low - slack) | (raw > high + slack)).mean())
    if outside > MAX_OUTSIDE:
        reason = (
            f"{outside:.0%} of the values lie outside and are clipped, from {raw.min():.3g} to {raw.max():.3g}"
        )
        guesses.append(Guess("doubtful range of the result", f"{low:g} to {high:g}", reason, "--output-range"))
    elif low < 0 and raw.min() >= 0.0:
        reason = f"nothing below 0 was seen, but {raw.min():.3g} to {raw.max():.3g}"
        guesses.append(Guess("doubtful range of the result", f"{low:g} to {high:g}", reason, "--output-range"))
