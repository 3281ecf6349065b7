"""The options of a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_pixels import MAX_SIDE
from gensdk_runtime.stream.figures import StreamFigures

MAX_SECONDS = 100_000_000
"""Three years: what no stream needs, and every clock can wait for."""


@dataclass(frozen=True)
class StreamOptions:
    """How :func:`gensdk_runtime.stream.translate_stream` goes about it.

    - `label`: the class, for a model with classes; `tile`: as in :meth:`Generator.translate`.
    - `size`: (height, width) that frames are resized to before they are translated; None leaves them.
    - `side_by_side`: the view shows the source, enlarged to the result's size, left of the result.
    - `mix`: the source's share in the view, 0 (the result alone) to 1.
    - `skip_similar`: where no part of a frame (a sixteenth of its height and width) differs by more grey levels,
      0 to 255, on average, from the last one that was translated, that one's result is taken. None: never.
    - `live`: True drops frames that there is no time for, so that what is shown is always fresh; a file then
      plays at its own speed. False keeps every frame. None: True for cameras and network streams.
    - `max_frames` and `max_seconds` end the stream.
    - `stall_seconds`: a live source that gives no frame for so long counts as lost. It is then opened again, with
      pauses that double, `reconnects` times in a row before the stream ends with an error.
    - `on_second` is called with the figures of each second that passed, `on_event` with a line of text where a
      frame is corrupt or a source lost or back; the latter from several threads.

    Raises :class:`InputError` for values out of range.
    """

    label: int | str | None = None
    tile: int | None = None
    size: tuple[int, int] | None = None
    side_by_side: bool = False
    mix: float = 0.0
    skip_similar: float | None = None
    live: bool | None = None
    max_frames: int | None = None
    max_seconds: float | None = None
    stall_seconds: float = 10.0
    reconnects: int = 5
    on_second: Callable[[StreamFigures], None] | None = None
    on_event: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        _check(_is_number(self.mix, 0, 1), "mix from 0 to 1", self.mix)
        _check(
            self.skip_similar is None or _is_number(self.skip_similar, 0, 255),
            "skip_similar from 0 to 255",
            self.skip_similar,
        )
        _check(
            self.max_frames is None or _is_whole(self.max_frames, 1), "max_frames of at least 1", self.max_frames
        )
        _check(
            self.max_seconds is None or (_is_number(self.max_seconds, 0, MAX_SECONDS) and self.max_seconds > 0),
            f"max_seconds above 0, at most {MAX_SECONDS:,}",
            self.max_seconds,
        )
        _check(_is_number(self.stall_seconds, 0.05, 3600), "stall_seconds from 0.05 to 3600", self.stall_seconds)
        _check(_is_whole(self.reconnects, 0, 1_000_000), "reconnects from 0 to 1,000,000", self.reconnects)
        _check(self.tile is None or _is_whole(self.tile, 0), "tile as a number of pixels, 0 for never", self.tile)
        for name in ("side_by_side", "live"):
            value = getattr(self, name)
            allowed = isinstance(value, bool | np.bool_) or (name == "live" and value is None)
            _check(allowed, f"{name} as True or False", value)
        for name in ("on_second", "on_event"):
            _check(
                getattr(self, name) is None or callable(getattr(self, name)),
                f"a function as {name}",
                getattr(self, name),
            )
        if self.size is not None:
            fits = (
                isinstance(self.size, tuple | list)
                and len(self.size) == 2
                and all(_is_whole(side, 1, MAX_SIDE) for side in self.size)
            )
            _check(fits, f"size as (height, width), whole numbers from 1 to {MAX_SIDE}", self.size)
            object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))


def _is_whole(value: object, low: int, high: int = 2**31 - 1) -> bool:
    """True if it is an integer, numpy's among them, and no truth value, from `low` to `high`."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= int(value) <= high


def _is_number(value: object, low: float, high: float) -> bool:
    """True if it is a real number from `low` to `high`, which NaN is not."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(low <= value <= high)


def _check(holds: bool, expected: str, came: object) -> None:
    if not holds:
        raise InputError(f"expected {expected}, got {came!r:.80}")
