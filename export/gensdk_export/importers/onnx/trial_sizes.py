"""Finds the sizes that a third-party model takes: multiples, scale, what its convolutions cut off, a smallest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx.kinds import smaller_result
from gensdk_export.importers.onnx.meaning import OnnxOptions, Picture
from gensdk_runtime.errors import ExportError, InputError
from gensdk_runtime.media.image_pixels import MAX_SIDE

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""So many multiples a side are tried for the smallest image."""
BASE = 64
"""Pixels: sizes are tried from here on."""
RESULT_SIDE = 256
"""Pixels of the result that a model of any size is proved at, where the caller says nothing."""
USUAL_SIDES = (256, 512, 224, 128, 64, 32, 28, 96, 320, 384, 640, 720, 1024)
"""Tried where axes have names, and the graph takes one size alone."""
MAX_BORDER = 256
PROVED_AT = "size to prove it at"
Size = tuple[int, int]
Run = Callable[[Picture, Size], Size]
"""Height and width of what comes out of a picture of a size; :class:`ExportError` where it can't be run."""
_NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")


@dataclass(frozen=True)
class Sizes:
    """`source` with the border that was found; `free` axes take multiples of `multiple` from `smallest` on, the
    model is proved at `size`, and its result is `scale` times as large."""

    source: Picture
    size: Size
    free: tuple[bool, bool]
    multiple: int
    smallest: int
    scale: int

    def smaller(self) -> Size:
        """Half of the size to prove it at, or the same where that is the smallest, or no side is free."""
        height, width = (
            max(self.smallest, side // 2 // self.multiple * self.multiple) if free and side > BASE else side
            for side, free in zip(self.size, self.free, strict=True)
        )
        return height, width


@dataclass(frozen=True)
class _Fit:
    """``result = scale * size - cut`` at sizes of multiples of `multiple`."""

    multiple: int
    scale: int
    cut: int


def find_sizes(source: Picture, run: Run, options: OnnxOptions, guesses: list[Guess]) -> Sizes:
    """Tries sizes out. Raises :class:`InputError` for options that don't fit what the model does, and
    :class:`ExportError` where it can't be run, or its result is no image of a whole scale."""
    free = tuple(not isinstance(axis, int) for axis in source.sides)
    if not any(free):
        size = _proved(source, options, 1, 1, guesses)
        return Sizes(source, size, (False, False), 1, 1, _scale(run(source, size), size, options, guesses))
    try:
        fit = _fit(source, run, options)
    except ExportError as failure:
        size = _one_size(source, run, options, failure, guesses)
        return Sizes(source, size, (False, False), 1, 1, _scale(run(source, size), size, options, guesses))
    if options.multiple is None:
        reason = "the smallest at which every size that was tried comes back"
        guesses.append(Guess("multiple", str(fit.multiple), reason, "--multiple"))
    if fit.cut:
        source, fit = _with_border(source, run, options, fit, guesses)
    first = fixed(source, (BASE // fit.multiple * fit.multiple or fit.multiple,) * 2)
    scale = _scale(run(source, first), first, options, guesses)
    size = _proved(source, options, fit.multiple, scale, guesses)
    smallest = _smallest(source, run, fit.multiple, scale, guesses)
    return Sizes(source, size, (free[0], free[1]), fit.multiple, min(smallest, *size), scale)


def fixed(source: Picture, size: Size) -> Size:
    """`size` with the sides that the file fixes."""
    height, width = (
        axis if isinstance(axis, int) else side for axis, side in zip(source.sides, size, strict=True)
    )
    if max(height, width) > MAX_SIDE:
        raise InputError(f"expected images of at most {MAX_SIDE} pixels a side, the file wants {height} x {width}")
    return height, width


def _fit(source: Picture, run: Run, options: OnnxOptions) -> _Fit:
    """The smallest multiple at which sizes follow one line."""
    last = no_multiple = ExportError(
        "no multiple of height and width gives a result of the same shape; give --size and --scale"
    )
    for multiple in (options.multiple,) if options.multiple else MULTIPLES:
        base = max(BASE, multiple)
        base = base // multiple * multiple
        sizes = [fixed(source, (base + up * multiple, base + down * multiple)) for up, down in ((1, 3), (2, 1))]
        try:
            shapes = [run(source, size) for size in sizes]
        except ExportError as failure:
            last = failure
            continue
        axes = [
            (size[axis], shape[axis])
            for size, shape in zip(sizes, shapes, strict=True)
            for axis in (0, 1)
            if not isinstance(source.sides[axis], int)
        ]
        fit = _line(multiple, axes)
        if fit is not None:
            return fit
        if all(shape[axis] < size[axis] for size, shape in zip(sizes, shapes, strict=True) for axis in (0, 1)):
            last = ExportError(smaller_result(sizes[0], shapes[0]))
        else:
            last = no_multiple
    raise last


def _line(multiple: int, axes: Sequence[Size]) -> _Fit | None:
    """The whole scale and the constant that all pairs (size, result) have in common, if there are such."""
    (small, small_out), (large, large_out) = min(axes), max(axes)
    if large == small or (large_out - small_out) % (large - small):
        return None
    scale = (large_out - small_out) // (large - small)
    cut = scale * small - small_out
    fits = scale >= 1 and cut >= 0 and all(out == scale * size - cut for size, out in axes)
    return _Fit(multiple, scale, cut) if fits else None


def _with_border(
    source: Picture, run: Run, options: OnnxOptions, fit: _Fit, guesses: list[Guess]
) -> tuple[Picture, _Fit]:
    """`source` with as many mirrored pixels around it as its convolutions cut off."""
    border, rest = divmod(fit.cut, 2 * fit.scale)
    what = f"its result is {fit.scale} times the size less {fit.cut} pixels, which its convolutions cut off"
    if rest or border > MAX_BORDER:
        raise ExportError(f"{what}; that can't be made up by a border; export it with padding in its convolutions")
    bordered = replace(source, border=border)
    try:
        again = _fit(bordered, run, replace(options, multiple=fit.multiple))
    except ExportError:
        again = fit
    if again.cut:
        raise ExportError(
            f"{what}; with a border it takes other sizes; export it with padding in its convolutions"
        )
    guesses.append(Guess("border", f"{border} pixels, mirrored", what))
    return bordered, again


def _one_size(source: Picture, run: Run, options: OnnxOptions, failure: ExportError, guesses: list[Guess]) -> Size:
    """The one size that a graph takes although its axes have names; `failure`: why it takes no others."""
    found = _NODE.search(str(failure))
    if found is None:
        raise failure
    where = f"node {found[2][:80]!r} ({found[1]}) has sizes baked in"
    sides = [options.size] if options.size else [(side, side) for side in USUAL_SIDES]
    for size in sides:
        try:
            run(source, fixed(source, size))
        except ExportError:
            continue
        reason = f"its axes have names, but {where}"
        guesses.append(Guess("sizes", f"{size[0]} x {size[1]} alone", reason, "--size"))
        return fixed(source, size)
    tried = f"{sides[0][0]} x {sides[0][1]}" if options.size else "any usual size"
    raise ExportError(
        f"its axes have names, but {where}, and it does not run at {tried}; give the size that it was exported "
        "for, --size HEIGHTxWIDTH, or export it with dynamic axes"
    )


def _smallest(source: Picture, run: Run, multiple: int, scale: int, guesses: list[Guess]) -> int:
    """From which size on the model runs: mirrored edges, for one, need more than a pixel to mirror."""
    for units in UNITS:
        side = units * multiple
        if side <= source.border:
            continue
        size = fixed(source, (side, side))
        try:
            out = run(source, size)
        except ExportError:
            continue
        if out == (size[0] * scale, size[1] * scale):
            if units > 1:
                guesses.append(Guess("smallest size", str(side), "the smallest that was tried and comes back"))
            return side
    return max(BASE, multiple)


def _scale(out: Size, size: Size, options: OnnxOptions, guesses: list[Guess]) -> int:
    scale = out[0] // size[0]
    if scale < 1 or out != (size[0] * scale, size[1] * scale):
        raise ExportError(smaller_result(size, out))
    if options.scale is not None and options.scale != scale:
        raise InputError(f"expected scale {scale}, which is what the model does, got {options.scale}")
    if options.scale is None:
        guesses.append(Guess("scale", str(scale), f"{size[0]} x {size[1]} becomes {out[0]} x {out[1]}"))
    return int(scale)


def _proved(source: Picture, options: OnnxOptions, multiple: int, scale: int, guesses: list[Guess]) -> Size:
    """(height, width) to prove and measure at."""
    side = max(1, RESULT_SIDE // scale // multiple) * multiple
    size = fixed(source, options.size or (side, side))
    if options.size is not None and size != options.size:
        raise InputError(f"expected --size {size[0]}x{size[1]}, which the file fixes, got {options.size}")
    for axis, length in zip(source.sides, size, strict=True):
        if not isinstance(axis, int) and length % multiple:
            raise InputError(f"expected a size of multiples of {multiple}, got {size[0]} x {size[1]}")
    if options.size is None and any(not isinstance(axis, int) for axis in source.sides):
        guesses.append(Guess(PROVED_AT, f"{size[0]} x {size[1]}", "it takes any", "--size"))
    return size
