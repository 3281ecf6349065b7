"""A frame on its way through a stream, and what sinks are told about the stream as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.media.image_pixels import resize
from gensdk_runtime.media.sounds import Float32, Sound

Uint8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Presentation:
    """When and how a video shows a frame, exactly as its file says.

    `time` in seconds from the film's begin, `duration` in seconds where it is known, and `pixel_aspect`: how wide
    a pixel is for its height.
    """

    time: Fraction
    duration: Fraction | None = None
    pixel_aspect: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """One frame of a source.

    `index` counts what the source gave, dropped and corrupt frames too; `image` uint8 [H, W, 3] in RGB, at the
    size that is translated; `captured` is when it was read, in seconds of ``time.perf_counter``; `decode` the
    seconds that reading took; `presentation` as the source has it, None for live frames. Of a file of its own:
    `name`, its path within the source, and `alpha` uint8 [h, w, 1], its transparency where that is kept. Of a
    talking face: `heard`, the window of sound around it, float32 [samples] at the model's rate.
    """

    index: int
    image: Uint8
    captured: float
    decode: float
    presentation: Presentation | None = None
    name: str = ""
    alpha: Uint8 | None = None
    heard: Float32 | None = None


@dataclass(slots=True)
class TranslatedFrame:
    """What a sink gets.

    `source` uint8 [H, W, 3] in RGB; `result` uint8 [s H, s W, C], what the model made of it; `view` uint8 [h, w,
    3] in RGB, what is to be shown: the result, mixed with the source or beside it where that was asked for. The
    arrays are the sink's to keep, not to change. `reused`: the source was so similar to an earlier one that its
    result was taken. `index`, `captured`, `decode`, `presentation`, `name` and `alpha` as in
    :class:`CapturedFrame`; `translate`: seconds.
    """

    index: int
    captured: float
    source: Uint8
    result: Uint8
    view: Uint8
    reused: bool
    decode: float
    translate: float
    presentation: Presentation | None = None
    name: str = ""
    alpha: Uint8 | None = None

    @property
    def picture(self) -> Uint8:
        """The view, with the source's transparency where that is kept: uint8 [h, w, 3 or 4]."""
        if self.alpha is None:
            return self.view
        return np.concatenate([self.view, resize(self.alpha, *self.view.shape[:2])], axis=2)


@dataclass(frozen=True)
class FileFacts:
    """What a video file says of itself.

    `path`, None where it is read from an address; `time_base`: the unit of its times, in seconds; `rate`: frames
    per second on average; `grid`: the lowest rate on which all its times lie, as far as FFmpeg can tell; `others`:
    the kinds of its streams that are neither the video nor sound; `sound`: what is heard with it, where that is
    not in the file.
    """

    path: Path | None = None
    time_base: Fraction | None = None
    rate: Fraction | None = None
    grid: Fraction | None = None
    others: tuple[str, ...] = ()
    sound: Sound | None = None


@dataclass(frozen=True)
class StreamFacts:
    """What is known when a stream begins: the names of model and source, whether frames come in real time, the
    source's frames per second, and how many it holds; 0 where it does not say. `file`: of a video that is no live
    one."""

    model: str
    source: str
    live: bool
    fps: float = 0.0
    frames: int = 0
    file: FileFacts | None = None
